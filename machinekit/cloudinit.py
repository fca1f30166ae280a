"""The user-data a new machine reads at its first boot. Builder only.

https://docs.cloud-init.io/en/latest/reference/modules.html
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from email import message_from_bytes
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

from machinekit.errors import PreCheckError

# what a part's first line says it is; https://docs.cloud-init.io/en/latest/explanation/format.html
KINDS = {
    "#cloud-config-archive": "cloud-config-archive",
    "#cloud-config": "cloud-config",
    "#cloud-boothook": "cloud-boothook",
    "#include": "x-include-url",
    "#part-handler": "part-handler",
    "## template: jinja": "jinja2",
    "#!": "x-shellscript",
}
MULTIPART = ("content-type: multipart/", "mime-version:")
# ours comes first: what it says stays, and the lists of a later part (users, packages, runcmd) are added to it
MERGE = "dict(no_replace,recurse_list)+list(append)+str()"


def user_data(
    hostname: str, user: str, authorized_key: str, host_key: str, host_key_public: str, *, own: bytes = b""
) -> str:
    """A cloud-config with our user, our key and the machine's SSH host key, and after it the user's `own` user-data.

    Ours is JSON, which is YAML too and has only one way to quote. Without a host key cloud-init makes one. Raises
    PreCheckError as `parts` does.
    """
    config = {
        "hostname": hostname,
        "manage_etc_hosts": True,  # or sudo complains that it cannot resolve the host
        "users": [
            {
                "name": user,
                "groups": ["docker"],
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": [authorized_key],
            }
        ],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
    }
    if host_key.strip():
        config["ssh_keys"] = {"ed25519_private": host_key, "ed25519_public": host_key_public}
    ours = f"#cloud-config\n{json.dumps(config, indent=1)}\n"
    return _together(ours, parts(own)) if own else ours


def parts(own: bytes) -> list[Message]:
    """The user's own user-data as parts of a MIME message; raises PreCheckError when cloud-init would not know it."""
    try:
        plain = gzip.decompress(own) if own.startswith(b"\x1f\x8b") else own
        text = plain.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise PreCheckError(f"the user-data cannot be read: {error}", "it is a text, or one packed by gzip") from None
    if text.lower().startswith(MULTIPART):
        return [part for part in message_from_bytes(plain).walk() if not part.is_multipart()]
    for start, kind in KINDS.items():
        if text.startswith(start):
            return [_part(text, kind)]
    raise PreCheckError(
        f"the user-data begins with {text[:20]!r}, which cloud-init does not know",
        f"its first line is one of: {', '.join(KINDS)}",
    )


def _together(ours: str, own: list[Message]) -> str:
    """One MIME message, the same for the same parts."""
    digest = hashlib.sha256(b"".join(part.as_bytes() for part in own)).hexdigest()
    message = MIMEMultipart(boundary=f"machinekit-{digest[:32]}")
    message.attach(_part(ours, "cloud-config"))
    for part in own:
        if part.get_content_type() in ("text/cloud-config", "text/jinja2") and "Merge-Type" not in part:
            part["Merge-Type"] = MERGE
        message.attach(part)
    return message.as_string()


def _part(text: str, kind: str) -> MIMEText:
    return MIMEText(text, kind, "us-ascii" if text.isascii() else "utf-8")
