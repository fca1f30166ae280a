"""Large files: cut, gone on with, started over, refused; what is left is always of use or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinekit import web
from machinekit.download import _told_of_space, amounts, large
from machinekit.errors import DownloadError, MachinekitError, UntrustedError
from tests.publisher import FILE, Publisher, disk
from tests.servers import Server, saying

CONTENT = disk()
SIZE = len(CONTENT)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def publisher(direct: pytest.MonkeyPatch) -> Iterator[Publisher]:
    with Publisher({FILE: CONTENT}) as publisher:
        yield publisher


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "download"


def get(publisher: Publisher, target: Path, digest: str = DIGEST) -> list[str]:
    told: list[str] = []
    large(publisher.url + FILE, target, digest, told.append)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return told


def test_a_file(publisher: Publisher, target: Path) -> None:
    told = get(publisher, target)
    assert told[-1].startswith("0 of 0 MB, ")
    assert publisher.requests() == [""]
    assert get(publisher, target) == ["checking what is here already"]
    assert len(publisher.asked) == 1, "nothing is asked for what is here"


def test_the_longer_digest_too(publisher: Publisher, target: Path) -> None:
    get(publisher, target, f"sha512:{hashlib.sha512(CONTENT).hexdigest()}")


@pytest.mark.parametrize("length", ["", "Content-Length: many\r\n", "Content-Length: -1\r\n"])
def test_a_length_that_is_not_told(direct: pytest.MonkeyPatch, target: Path, length: str) -> None:
    with Server(saying(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode() + CONTENT)) as server:
        large(f"http://127.0.0.1:{server.port}/{FILE}", target, DIGEST, print)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("validator", ["etag", "date", ""])
def test_cuts_are_gone_on_from(publisher: Publisher, target: Path, validator: str) -> None:
    publisher.validator = validator
    publisher.cuts = [100_000, 50_000, 1, 0, 0]
    get(publisher, target)
    assert publisher.requests() == ["", "bytes=100000-", "bytes=150000-", *["bytes=150001-"] * 3]


def test_a_server_without_ranges_sends_all_of_it_again(publisher: Publisher, target: Path) -> None:
    publisher.ranges = False
    publisher.cuts = [100_000]
    get(publisher, target)


def test_too_many_cuts_in_a_row_end_it_and_the_next_call_goes_on(publisher: Publisher, target: Path) -> None:
    publisher.cuts = [100_000, *[0] * web.TRIES]
    with pytest.raises(DownloadError, match="the connection ended after 100000 of") as caught:
        get(publisher, target)
    assert "goes on" in caught.value.hint
    assert target.stat().st_size == 100_000
    get(publisher, target)
    assert publisher.requests()[-1] == "bytes=100000-"


@pytest.mark.parametrize("validator", ["etag", ""])
def test_a_file_that_changed_meanwhile_starts_over(publisher: Publisher, target: Path, validator: str) -> None:
    publisher.validator = validator
    publisher.files[FILE] = disk(SIZE)[::-1]
    publisher.cuts = [100_000, *[0] * web.TRIES]
    with pytest.raises(DownloadError):
        get(publisher, target)
    publisher.files[FILE] = CONTENT
    get(publisher, target)


def test_a_beginning_that_is_longer_than_the_file_starts_over(publisher: Publisher, target: Path) -> None:
    target.write_bytes(b"x" * (SIZE + 1))
    get(publisher, target)
    assert publisher.requests() == [f"bytes={SIZE + 1}-", ""]


def test_another_file_is_refused_and_does_not_stay(publisher: Publisher, target: Path) -> None:
    publisher.files[FILE] = CONTENT[:-1] + b"x"
    with pytest.raises(UntrustedError, match=f"is not the file .* .{DIGEST}"):
        get(publisher, target)
    assert list(target.parent.iterdir()) == []
    assert len(publisher.asked) == 1


def test_a_stall_is_tried_again_and_then_an_error(
    publisher: Publisher, target: Path, direct: pytest.MonkeyPatch
) -> None:
    direct.setattr(web, "STALL", 0.2)
    publisher.stall_after = 0
    with pytest.raises(DownloadError, match="nothing came for"):
        get(publisher, target)
    assert len(publisher.asked) == web.TRIES
    publisher.stall_after = -1
    get(publisher, target)


def test_a_network_that_goes_away_in_the_middle_is_waited_for(
    publisher: Publisher, target: Path, direct: pytest.MonkeyPatch
) -> None:
    publisher.cuts = [100_000]
    opened, calls = web.opened, iter([True, False, True])

    def network(*words: object, **options: object) -> object:
        if next(calls):
            return opened(*words, **options)  # type: ignore[arg-type]
        raise web.UnreachableError("the network is unreachable")

    direct.setattr(web, "opened", network)
    get(publisher, target)


def test_a_network_that_was_never_there_is_not(publisher: Publisher, target: Path) -> None:
    url = publisher.url
    publisher.__exit__(None, None, None)
    with pytest.raises(DownloadError, match="cannot be reached: Connection refused"):
        large(url + FILE, target, DIGEST, lambda _: None)
    publisher.__enter__()


def test_a_disk_that_fills_up_says_so(target: Path) -> None:
    with pytest.raises(MachinekitError, match=f"the disk of {target.parent} is full") as caught:  # noqa: SIM117
        with _told_of_space(target, 0), Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")
    assert not isinstance(caught.value, DownloadError), "building would need room too"


def test_a_file_without_room_is_not_begun(publisher: Publisher, target: Path, direct: pytest.MonkeyPatch) -> None:
    direct.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 5000))
    with pytest.raises(MachinekitError, match="is full: 0 MB are needed and 0 MB are free"):
        get(publisher, target)
    assert not target.exists()


def test_kill_leaves_a_beginning_that_is_gone_on_from(publisher: Publisher, target: Path) -> None:
    publisher.stall_after = 200_000
    script = "import sys; from pathlib import Path; from machinekit.download import large; url, file, digest = "
    script += "sys.argv[1:]; large(url, Path(file), digest, lambda text: print(text, flush=True))"
    command = [sys.executable, "-c", script, publisher.url + FILE, str(target), DIGEST]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    publisher.stall_after = -1
    begun = target.stat().st_size if target.exists() else 0
    get(publisher, target)
    assert publisher.requests() == ["", f"bytes={begun}-" if begun else ""]


@pytest.mark.parametrize(
    ("done", "total", "rate", "text"),
    [
        (120e6, 430e6, 3.1e6, "120 of 430 MB, 3.1 MB/s, 1:40 left"),
        (1e6, 0, 2e6, "1 MB, 2.0 MB/s"),
        (0, 10e6, 0, "0 of 10 MB, 0.0 MB/s"),
    ],
)
def test_how_far_it_is(done: float, total: float, rate: float, text: str) -> None:
    assert amounts(int(done), int(total), rate) == text
