"""Any argument list and any environment: an answer or an error of ours, never a traceback, nothing outside the store.

No program can be found, and no connection but the one to the provider's engine can be made, so that nothing of this
computer is in danger. The profile `fuzz` of hypothesis tries many times more.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import logging
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import argcomplete
import hypothesis
import pytest
from argcomplete.finders import CompletionFinder
from hypothesis import example, given
from hypothesis import strategies as st

from machinekit import cli as command_line
from machinekit import converge, dockerapi, drivers, ssh
from machinekit.create import create
from machinekit.drivers import variables
from machinekit.machine import Machine
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Result, Told
from tests.providers.fake import TOKEN, FakeCloud, FakeOptions

TIMES = 6  # as many as the profile says
often = hypothesis.settings(
    max_examples=TIMES * hypothesis.settings().max_examples,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
DRIVERS = ("fake", "none", "generic", "container", "qemu")
EXIT_CODES = {0, 1, 2, 3, 4}
REPORTS = {"doctor", "gc"}  # what they find they print, and their exit code says that they found something


def flags() -> list[str]:
    """Every option of every command, with every driver's."""
    parsers = [command_line.parser_for(None, ["create", "-d", name]) for name in DRIVERS if name != "fake"]
    found = set()
    for parser in parsers:
        for inner in (parser, *parser._commands()):
            found |= set(inner._option_string_actions)
    return [*sorted(found - {"-s", "--storage-path"}), "--fake-size", "--fake-tags", "--fake-spot", "--fake-token"]


# what the shell may hand over: anything but NUL, and bytes that are no text as lone surrogates
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
BYTES = st.binary(max_size=8).map(lambda raw: raw.replace(b"\0", b"0").decode(errors="surrogateescape"))
WORTH_TRYING = st.sampled_from(
    """fake1 half default node1 a . .. - -- -1 0 1 65536 1e999 nan a=b =b a= a=[ a=1e999 8080:80 1.2.3.4:1:1 true 2G 1T
    {{7}} %h $(touch$IFS@canary) `touch$IFS@canary` --help -D -v -h fake1:x @x ~x/y tcp://127.0.0.1:1 unix:///x https://m
    10.0.0.0/8 [::1] debian-12 rootfs fake none generic container qemu json""".split()
) | st.sampled_from(["", " ", "\n", "a=\nb", "a=" + "[" * 20000, "x" * 5000, "9" * 5000, "ä", "a=\udcff"])
VALUE = st.one_of(WORTH_TRYING, TEXT, BYTES)
COMMAND = st.sampled_from(sorted(command_line.COMMANDS))
FLAG = st.sampled_from(flags())
WORD = st.one_of(
    FLAG,
    VALUE,
    COMMAND,
    st.builds("{}={}".format, FLAG, VALUE),
    st.builds(lambda flag, end: flag[:end], FLAG, st.integers(2, 12)),
)
ARGUMENTS = st.one_of(
    st.lists(WORD, max_size=6),
    st.builds(lambda command, rest: [command, *rest], COMMAND, st.lists(WORD, max_size=6)),
    st.builds(
        lambda driver, rest: ["create", "-d", driver, *itertools.chain(*rest)],
        st.sampled_from(DRIVERS),
        st.lists(st.tuples(FLAG, VALUE) | st.tuples(VALUE), max_size=4),
    ),
)
VARIABLES = [
    *(
        name
        for driver in DRIVERS
        if driver != "fake"
        for field, info in drivers.load(driver).Options.infos().items()
        for name in variables(driver, field, info.aliases)
    ),
    *"MACHINE_DRIVER MACHINE_DEBUG MACHINE_DOCKER_INSTALL_URL ENGINE_REGISTRY_MIRROR MACHINE_TLS_CA_CERT".split(),
    *"FAKE_TAGS MACHINEKIT_FAKE_SIZE FAKE_TOKEN DOCKER_HOST DOCKER_CONTEXT DOCKER_MACHINE_NAME NO_PROXY".split(),
    *"SHELL COLUMNS LANG LC_ALL TERM NO_COLOR TZ COMP_LINE COMP_POINT XDG_DATA_HOME".split(),
]
ENVIRONMENT = st.dictionaries(st.sampled_from(VARIABLES), VALUE, max_size=5)

Call = Callable[..., Result]


@pytest.fixture
def call(
    store: Store,
    told: Told,
    cloud: FakeCloud,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Call]:
    """The command line in a folder and with a store of its own each time; checks what must hold always."""
    create(store, "fake1", driver="fake", options=FakeOptions(TOKEN), spec=Spec(), progress=told)
    store.reserve(Machine("half", "uid-half", "none", "s", "", options={"url": "tcp://127.0.0.1:1"}))
    template = tmp_path / "template"
    store.home.rename(template)
    numbers = itertools.count()
    connect = socket.create_connection

    def only_to_the_cloud(address: tuple[str, int], *rest: Any, **more: Any) -> socket.socket:
        if address != ("127.0.0.1", cloud.engine_port):
            raise ConnectionRefusedError(111, "Connection refused")
        return connect(address, *rest, **more)

    environment.setattr(socket, "create_connection", only_to_the_cloud)
    environment.setattr(ssh, "CONNECT", 0.0)
    environment.setattr(converge, "ENGINE", 0.0)
    environment.setattr(dockerapi, "PATIENCE", 1.0)
    environment.setenv("PATH", str(tmp_path / "no-programs"))

    def run(words: list[str], values: dict[str, str]) -> Result:
        folder = tmp_path / str(next(numbers))
        home = folder / "store"
        init = "init" in words
        shutil.copytree(template, home)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("HOME", str(folder))
            for name, value in values.items():
                patch.setenv(name, value)
            patch.setenv("MACHINEKIT_HOME", str(home))
            patch.setenv("DOCKER_CONFIG", str(home / "docker"))
            # another store, or the file that init is to write, would be anywhere on this computer
            away = {word for word in words if word.startswith(("-s", "--storage-path")) or (init and "/" in word)}
            result = in_process([word for word in words if word not in away])
        assert result.code in EXIT_CODES
        if result.code and not (result.out and REPORTS.intersection(words)):
            assert re.search(r"^machinekit: \S", result.err, re.MULTILINE)
        assert "Traceback" not in result.err
        left = {path.name for path in folder.iterdir()} - {"store", *(["machinekit.yaml", *words] if init else [])}
        assert left <= {values.get("XDG_DATA_HOME", "")}
        shutil.rmtree(folder)
        return result

    yield run


def in_process(words: list[str]) -> Result:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in range(2))
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = command_line.main(words)
        except SystemExit as leaving:  # --help, and completion
            code = int(leaving.code or 0)
        finally:
            logging.getLogger().handlers[:], logging.getLogger().level = handlers, level
        out.flush()
        err.flush()
    said = [stream.buffer.getvalue().decode(errors="replace") for stream in (out, err)]
    return Result(code, *said)


@often
@given(words=ARGUMENTS)
@example(words=["create", "-d", "fake", "--engine-opt", "a=" + "[" * 20000, "node1"])
@example(words=["create", "-d", "fake", "--engine-label", "a=\udcff", "node1"])
@example(words=["create", "-d", "generic", "--generic-ip-address", "h", "--generic-ssh-key", "~x/y", "node1"])
@example(words=["init"])
@example(words=["init", "\udcff"])
def test_any_arguments(call: Call, words: list[str]) -> None:
    call(words, {})


@often
@given(words=ARGUMENTS, values=ENVIRONMENT)
@example(words=["ls"], values={"COLUMNS": "9" * 5000, "LINES": "²"})
@example(words=["ls"], values={"COLUMNS": "\n", "TERM": "", "LANG": "ä", "TZ": "\udcff"})
@example(words=["env", "--no-proxy", "fake1"], values={"NO_PROXY": "\udcff,\n", "SHELL": "/"})
def test_any_environment(call: Call, words: list[str], values: dict[str, str]) -> None:
    call(words, values)


@often
@given(
    line=st.one_of(ARGUMENTS.map(lambda words: " ".join(["machinekit", *words])), TEXT),
    point=st.one_of(st.integers(0, 80).map(str), VALUE),
    start=st.one_of(st.just("1"), VALUE),
)
@example(line="machinekit ls 'un", point="17", start="1")
@example(line="", point="0", start="1")
def test_any_line_to_complete(call: Call, environment: pytest.MonkeyPatch, line: str, point: str, start: str) -> None:
    answers = io.StringIO()
    asked = functools.partial(CompletionFinder(), exit_method=sys.exit, output_stream=answers)
    environment.setattr(argcomplete, "autocomplete", asked)
    environment.setattr(CompletionFinder, "_init_debug_stream", lambda self: None)
    call(["ls", "-q"], {"_ARGCOMPLETE": start, "COMP_LINE": line, "COMP_POINT": point, "_ARGCOMPLETE_IFS": "\n"})
