"""GitLab and GitHub, as far as their runners talk to them, and packages of runners that talk to them for real.

The programs in the packages keep their state where the real ones do and say what these say, but run no jobs.
https://docs.gitlab.com/api/runners/ and src/Runner.Listener of actions/runner.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.publisher import Signer

VERSIONS = ("17.5.0", "17.6.0")
RUNNER = r"""#!/bin/sh
set -eu
config=/etc/gitlab-runner/config.toml
value() { sed -n "/^  name = \"$name\"\$/,/^\[\[/s/^  $1 = \"\(.*\)\"\$/\1/p" "$config"; }
call() { # method path: the answer's status; parameters from stdin, for no list of arguments
  curl -s -o /run/gitlab-runner.answer -w '%{http_code}' -X "$1" "$url/api/v4/$2" --data @-
}
forget() {
  awk -v name="  name = \"$name\"" '
    /^\[\[runners\]\]/ { held = $0; next }
    held != "" { if ($0 == name) { gone = 1 } else { gone = 0; print held }; held = "" }
    !gone { print }' "$config" >"$config.new"
  mv "$config.new" "$config"
}
command=$1
shift
name='' url='' image='' delete='' privileged=false
while [ $# -gt 0 ]; do
  case $1 in
  --name) name=$2 && shift ;;
  --url) url=$2 && shift ;;
  --docker-image) image=$2 && shift ;;
  --executor) [ "$2" = docker ] && shift ;;
  --tls-ca-file) shift ;;
  --docker-privileged) privileged=true ;;
  --delete) delete=yes ;;
  --non-interactive) ;;
  *) echo "flag provided but not defined: $1" >&2 && exit 1 ;;
  esac
  shift
done
case $command in
run) while :; do sleep 1000; done ;;
register)
  if [ -n "${CI_SERVER_TOKEN:-}" ]; then
    token=$CI_SERVER_TOKEN
    status=$(printf 'token=%s' "$token" | call POST runners/verify)
    [ "$status" = 200 ] || { echo "ERROR: Verifying runner... is removed" >&2; exit 1; }
    echo 'Verifying runner... is valid'
  else
    [ -n "${REGISTRATION_TOKEN:-}" ] || { echo 'PANIC: the registration-token needs to be entered' >&2; exit 2; }
    status=$(printf 'token=%s&description=%s&tag_list=%s' "$REGISTRATION_TOKEN" "$name" "${RUNNER_TAG_LIST:-}" |
      call POST runners)
    [ "$status" = 201 ] || { echo "ERROR: Registering runner... forbidden" >&2; exit 1; }
    token=$(sed 's/.*"token": "\([^"]*\)".*/\1/' /run/gitlab-runner.answer)
    echo 'Registering runner... succeeded'
  fi
  mkdir -p /etc/gitlab-runner
  umask 077
  [ -e "$config" ] || printf 'concurrent = 1\ncheck_interval = 0\n' >"$config"
  cat >>"$config" <<END
[[runners]]
  name = "$name"
  url = "$url"
  token = "$token"
  executor = "docker"
  [runners.docker]
    image = "$image"
    privileged = $privileged
END
  ;;
verify)
  url=$(value url)
  case $(printf 'token=%s' "$(value token)" | call POST runners/verify) in
  200) echo 'Verifying runner... is alive' >&2 ;;
  403)
    echo 'ERROR: Verifying runner... is removed' >&2
    if [ -z "$delete" ]; then echo 'FATAL: Failed to verify runners' >&2 && exit 1; fi
    forget
    ;;
  *) echo 'ERROR: Verifying runner... failed' >&2 ;;
  esac
  ;;
unregister)
  url=$(value url) token=$(value token)
  path=runners
  case $token in glrt-*) path=runners/managers ;; esac
  status=$(printf 'token=%s' "$token" | call DELETE $path)
  [ "$status" = 204 ] || { echo "FATAL: Failed to unregister runner $name" >&2; exit 1; }
  forget
  ;;
esac
"""
UNIT = "[Service]\nExecStart=/usr/bin/gitlab-runner run\n[Install]\nWantedBy=multi-user.target\n"
POSTINST = """#!/bin/sh
set -e
systemctl daemon-reload
systemctl enable --quiet gitlab-runner
systemctl restart gitlab-runner
"""
PRERM = "#!/bin/sh\nsystemctl disable --quiet --now gitlab-runner\n"
CONFIG_SH = r"""#!/bin/bash
set -eu
cd "$(dirname "$0")"
if [ "$(id -u)" = 0 ]; then echo 'Must not run with sudo' && exit 1; fi
pat=${ACTIONS_RUNNER_INPUT_PAT:-}
unset ACTIONS_RUNNER_INPUT_PAT
post() { # url, an Authorization header, JSON: the answer; the header from stdin, for no list of arguments
  printf 'header = "Authorization: %s"\n' "$2" |
    curl -sf --config - -X "${4:-POST}" "$1" -H 'Content-Type: application/json' -d "$3"
}
token() { sed 's/.*"token": "\([^"]*\)".*/\1/'; }
if [ "${1:-}" = remove ]; then
  if [ -e .service ]; then echo 'Unconfigure service first' && exit 1; fi
  url=$(sed -n 's/.*"gitHubUrl": "\([^"]*\)".*/\1/p' .runner) id=$(sed -n 's/.*"agentId": \([0-9]*\).*/\1/p' .runner)
  event=remove
else
  url='' name='' labels='' event=register
  while [ $# -gt 0 ]; do
    case $1 in
    --url) url=$2 && shift ;;
    --name) name=$2 && shift ;;
    --labels) labels=$2 && shift ;;
    --runnergroup) shift ;;
    --unattended | --replace | --disableupdate) ;;
    *) echo "Unrecognized command-line input arguments: $1" && exit 1 ;;
    esac
    shift
  done
fi
server=$(printf %s "$url" | cut -d / -f 1-3) path=$(printf %s "$url" | cut -d / -f 4-)
[ $event = remove ] && kind=remove || kind=registration
if [ -z "$pat" ]; then
  echo "Invalid configuration provided for token. Terminating unattended configuration."
  exit 1
fi
basic=$(printf 'github:%s' "$pat" | base64 -w 0)
jit=$(post "$server/api/v3/repos/$path/actions/runners/$kind-token" "basic $basic" '' | token)
what="{\"url\": \"$url\", \"runner_event\": \"$event\"}"
tenant=$(post "$server/api/v3/actions/runner-registration" "RemoteAuth $jit" "$what" | token)
agents=$server/_apis/distributedtask/pools/1/agents
if [ $event = remove ]; then
  post "$agents/$id" "Bearer $tenant" '' DELETE
  rm -f .runner .credentials
  echo '√ Runner removed successfully'
else
  what="{\"name\": \"$name\", \"labels\": \"$labels\"}"
  id=$(post "$agents" "Bearer $tenant" "$what" | sed 's/.*"id": \([0-9]*\).*/\1/')
  printf '{"agentId": %s, "agentName": "%s", "gitHubUrl": "%s"}\n' "$id" "$name" "$url" >.runner
  (umask 077 && echo '{}' >.credentials)
  echo '√ Runner successfully added'
fi
"""
SVC_SH = r"""#!/bin/bash
set -eu
[ "$(id -u)" = 0 ] || { echo 'Must run as sudo' && exit 1; }
unit=actions.runner.$(basename "$PWD").service
case $1 in
install)
  if [ -e "/etc/systemd/system/$unit" ]; then echo "error: exists $unit" && exit 1; fi
  printf '[Service]\nExecStart=%s/run.sh\nUser=%s\nWorkingDirectory=%s\n[Install]\nWantedBy=multi-user.target\n' \
    "$PWD" "$2" "$PWD" >"/etc/systemd/system/$unit"
  systemctl daemon-reload
  systemctl enable -q "$unit"
  echo "$unit" >.service
  ;;
start) systemctl start "$unit" ;;
stop) systemctl stop "$unit" ;;
uninstall)
  systemctl stop "$unit"
  systemctl disable -q "$unit"
  rm "/etc/systemd/system/$unit" .service
  systemctl daemon-reload
  ;;
esac
"""


@dataclass
class Forge:
    """GitLab and GitHub in one: `tokens` may register runners, `runners` are those that are registered by token."""

    url: str
    fingerprint: str
    tokens: set[str] = field(default_factory=set)
    runners: dict[str, dict[str, str]] = field(default_factory=dict)
    agents: dict[int, dict[str, str]] = field(default_factory=dict)
    down: bool = False
    packages: dict[str, str] = field(default_factory=dict)  # of GitHub's runner: version to SHA-256
    files: dict[str, bytes] = field(default_factory=dict)
    _given: set[str] = field(default_factory=set)
    _number: int = 0

    def forget(self) -> None:
        """Know nobody."""
        for known in (self.tokens, self.runners, self.agents):
            known.clear()

    def answer(self, method: str, path: str, header: str, body: bytes) -> tuple[int, Any]:
        """Status and answer to a request: bytes, or what becomes JSON."""
        if method == "GET":
            content = self.files.get(path.lstrip("/"))
            return (404, b"") if content is None else (200, content)
        if self.down:
            return 502, {}
        if path.startswith("/api/v4/"):
            form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            return self._gitlab(method, path.removeprefix("/api/v4/"), form)
        return self._github(method, path, header, body)

    def _gitlab(self, method: str, path: str, form: dict[str, str]) -> tuple[int, Any]:
        token = form["token"]
        if (method, path) == ("POST", "runners"):
            if token not in self.tokens:
                return 403, {"message": "403 Forbidden"}
            self._number += 1
            made = f"made-{self._number}"
            self.runners[made] = form
            return 201, {"id": self._number, "token": made}
        if (method, path) == ("POST", "runners/verify"):
            if token in self.tokens and token.startswith("glrt-"):
                self.runners.setdefault(token, form)
            return (200, {"token": token}) if token in self.runners else (403, {})
        if method == "DELETE" and path == ("runners/managers" if token.startswith("glrt-") else "runners"):
            return (204, b"") if self.runners.pop(token, None) else (403, {})
        return 404, {}

    def _github(self, method: str, path: str, header: str, body: bytes) -> tuple[int, Any]:
        kind, _, secret = header.partition(" ")
        if path.endswith(("/registration-token", "/remove-token")):
            user, _, token = base64.b64decode(secret).decode().partition(":")
            known = (kind, user) == ("basic", "github") and token in self.tokens
        else:
            known = secret in self._given
        if not known:
            return 401, {"message": "Bad credentials"}
        if "/agents" not in path:
            self._number += 1
            self._given.add(f"given-{self._number}")
            return 201, {"token": f"given-{self._number}"}
        if method == "DELETE":
            return (204, b"") if self.agents.pop(int(path.rpartition("/")[2]), None) else (404, {})
        self._number += 1
        self.agents[self._number] = json.loads(body)
        return 200, {"id": self._number}


@contextmanager
def forge(address: str, folder: Path) -> Iterator[Forge]:
    """Both at an address of this computer, with the packages of their runners."""
    signer = Signer(folder)
    try:
        with _served(address) as (server, url):
            found = Forge(url, signer.fingerprint)
            found.files |= _repository(folder, signer)
            for version in ("2.319.1", "2.320.0"):
                package = _actions_runner(version)
                found.files[f"actions/{version}.tar.gz"] = package
                found.packages[version] = hashlib.sha256(package).hexdigest()
            server.forge = found  # type: ignore[attr-defined]
            yield found
    finally:
        signer.close()


@contextmanager
def _served(address: str) -> Iterator[tuple[http.server.ThreadingHTTPServer, str]]:
    server = http.server.ThreadingHTTPServer((address, 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found: Forge = self.server.forge  # type: ignore[attr-defined]
        status, said = found.answer(self.command, self.path, self.headers.get("Authorization") or "", body)
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _any  # noqa: N815 (the base class's names)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def _repository(folder: Path, signer: Signer) -> dict[str, bytes]:
    """Debian packages of GitLab's runner, signed, as packages.gitlab.com has them."""
    files: dict[str, bytes] = {"runner/gpgkey": signer.key()}
    listed = ""
    for version in VERSIONS:
        control = (
            f"Package: gitlab-runner\nVersion: {version}-1\nArchitecture: all\n"
            "Maintainer: Nobody <nobody@example.org>\nDepends: curl\nDescription: for a test\n"
        )
        package = _deb(folder / f"gitlab-runner-{version}", control)
        name = f"pool/gitlab-runner_{version}-1_all.deb"
        files[f"runner/debian/{name}"] = package
        listed += f"{control}Filename: {name}\nSize: {len(package)}\nSHA256: {hashlib.sha256(package).hexdigest()}\n\n"
    release = "Suite: bookworm\nCodename: bookworm\nComponents: main\nArchitectures: amd64 arm64 all\n"
    release += "Date: Sat, 01 Nov 2025 10:00:00 UTC\nSHA256:\n"
    for architecture in ("amd64", "arm64", "all"):
        path = f"main/binary-{architecture}/Packages"
        for name, content in ((path, listed.encode()), (f"{path}.gz", gzip.compress(listed.encode(), mtime=0))):
            files[f"runner/debian/dists/bookworm/{name}"] = content
            release += f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
    files["runner/debian/dists/bookworm/InRelease"] = signer.inline(release.encode())
    return files


def _deb(root: Path, control: str) -> bytes:
    for path, text, mode in (
        ("DEBIAN/control", control, 0o644),
        ("DEBIAN/postinst", POSTINST, 0o755),
        ("DEBIAN/prerm", PRERM, 0o755),
        ("usr/bin/gitlab-runner", RUNNER, 0o755),
        ("lib/systemd/system/gitlab-runner.service", UNIT, 0o644),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        (root / path).chmod(mode)
    package = root.with_suffix(".deb")
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(root), str(package)]
    subprocess.run(command, check=True, capture_output=True)
    return package.read_bytes()


def _actions_runner(version: str) -> bytes:
    """The package of GitHub's runner."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, text in (
            ("config.sh", CONFIG_SH),
            ("svc.sh", SVC_SH),
            ("run.sh", "#!/bin/sh\nexec sleep 1000000\n"),
            ("bin/version", f"{version}\n"),
        ):
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(text.encode()), 0o755
            archive.addfile(about, io.BytesIO(text.encode()))
    return held.getvalue()
