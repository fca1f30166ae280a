"""What points local clients at a machine: shell lines, docker flags, a docker context. Builders only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

SHELLS = ("bash", "zsh", "sh", "fish", "powershell", "cmd", "tcsh", "emacs", "json", "dotenv")
ALIASES = {"csh": "tcsh", "pwsh": "powershell", "ksh": "sh", "dash": "sh", "ash": "sh"}
VARIABLES = ("DOCKER_TLS_VERIFY", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME")


def variables(name: str, url: str, certs: str, tls: bool) -> dict[str, str | None]:
    """The environment of a docker client for a machine, in Docker Machine's order; None means unset."""
    return {
        "DOCKER_TLS_VERIFY": "1" if tls else None,
        "DOCKER_HOST": url,
        "DOCKER_CERT_PATH": certs if tls else None,
        "DOCKER_MACHINE_NAME": name,
    }


def without_proxy(address: str, environment: Mapping[str, str]) -> dict[str, str | None]:
    """NO_PROXY (or no_proxy, whichever is in use) with the address added."""
    key = "no_proxy" if "no_proxy" in environment and "NO_PROXY" not in environment else "NO_PROXY"
    entries = [entry for entry in environment.get(key, "").split(",") if entry]
    return {key: ",".join(entries if address in entries else [*entries, address])}


def proxy_restored(address: str, environment: Mapping[str, str]) -> dict[str, str | None]:
    """NO_PROXY (or no_proxy) with only our address taken out again."""
    key = "no_proxy" if "no_proxy" in environment and "NO_PROXY" not in environment else "NO_PROXY"
    entries = [entry for entry in environment.get(key, "").split(",") if entry and entry != address]
    return {key: ",".join(entries) or None}


def shell_lines(shell: str, settings: Mapping[str, str | None], command: str) -> str:
    """The text for a shell to evaluate: what to set and unset, then a hint how.

    Any unknown shell is taken for a Bourne shell, as Docker Machine does.
    """
    if shell == "json":
        import json

        return json.dumps(settings, indent=2) + "\n"
    if shell == "dotenv":
        return "".join(f"{key}={_bourne(value)}\n" for key, value in settings.items() if value is not None)
    template = _SYNTAX.get(shell, _SYNTAX["sh"])
    quote = _QUOTES.get(shell, _bourne)
    lines = [
        template[1].format(key=key) if value is None else template[0].format(key=key, value=quote(value))
        for key, value in settings.items()
    ]
    return "\n".join([*lines, *(line.format(command=command) for line in template[2:])]) + "\n"


def docker_flags(url: str, certs: str, tls: bool) -> str:
    """The flags of a docker client for a machine, as Docker Machine's `config` prints them."""
    if not tls:
        return f"-H={url}\n"
    files = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}
    lines = [f'--{flag}="{certs}/{file}"' for flag, file in files.items()]
    return "\n".join(["--tlsverify", *lines, f"-H={url}"]) + "\n"


def _escaped(value: str, special: str, escape: str) -> str:
    return "".join(escape + character if character in special else character for character in value)


def _bourne(value: str) -> str:
    return '"' + _escaped(value, '\\"$`', "\\") + '"'


def _fish(value: str) -> str:
    return '"' + _escaped(value, '\\"$', "\\") + '"'


def _powershell(value: str) -> str:
    return '"' + _escaped(value, '`"$', "`") + '"'


def _tcsh(value: str) -> str:
    # inside double quotes csh still expands $ ` and !; only leaving the quotes hides them
    return '"' + "".join(f'"\\{c}"' if c in '"$`!\\' else c for c in value) + '"'


def _emacs(value: str) -> str:
    return '"' + _escaped(value, '\\"', "\\") + '"'


_QUOTES: dict[str, Callable[[str], str]] = {
    "fish": _fish,
    "powershell": _powershell,
    "cmd": str,
    "tcsh": _tcsh,
    "emacs": _emacs,
}

# how to set, how to unset, then the hint
_SYNTAX = {
    "sh": (
        "export {key}={value}",
        "unset {key}",
        "# Run this command to configure your shell: ",
        "# eval $({command})",
    ),
    "fish": (
        "set -gx {key} {value};",
        "set -e {key};",
        "# Run this command to configure your shell: ",
        "# eval ({command})",
    ),
    "powershell": (
        "$Env:{key} = {value}",
        "Remove-Item Env:\\\\{key}",
        "# Run this command to configure your shell: ",
        "# & {command} | Invoke-Expression",
    ),
    "cmd": (
        "SET {key}={value}",
        "SET {key}=",
        "REM Run this command to configure your shell: ",
        "REM \t@FOR /f \"tokens=*\" %i IN ('{command}') DO @%i",
    ),
    "tcsh": (
        "setenv {key} {value};",
        "unsetenv {key};",
        ": Run this command to configure your shell: ",
        ": eval `{command}`",
    ),
    "emacs": (
        '(setenv "{key}" {value})',
        '(setenv "{key}" nil)',
        ";; Run this command to configure your shell: ",
        ';; (with-temp-buffer (shell-command "{command}" (current-buffer)) (eval-buffer))',
    ),
}
