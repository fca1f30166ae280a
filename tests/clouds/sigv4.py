"""Who signed a request: AWS signature version 4, as a server checks it.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote

KEY, SECRET = "AKIATESTTESTTESTTEST", "a secret of nobody's"
# of a session: good together with its token only
SESSION_KEY, SESSION_TOKEN = "ASIATESTTESTTESTTEST", "a token of nobody's"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>\w+)/(?P<scope>(?P<day>\d+)/(?P<region>[\w-]+)/ec2/aws4_request), ?"
    r"SignedHeaders=(?P<signed>[\w;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


def region_of(method: str, target: str, headers: Mapping[str, str], body: bytes) -> str:
    """The region that a request is for; empty when it is not signed with what we accept."""
    headers = {name.lower(): value.strip() for name, value in headers.items()}
    given = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if not given or given["key"] not in (KEY, SESSION_KEY):
        return ""
    if given["key"] == SESSION_KEY and headers.get("x-amz-security-token") != SESSION_TOKEN:
        return ""
    path, _, query = target.partition("?")
    pairs = sorted((quote(key, "~"), quote(value, "~")) for key, value in parse_qsl(query, keep_blank_values=True))
    lines = [
        method,
        path,
        "&".join(f"{key}={value}" for key, value in pairs),
        *(f"{name}:{headers.get(name, '')}" for name in given["signed"].split(";")),
        "",
        given["signed"],
        headers.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest(),
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", headers.get("x-amz-date", ""), given["scope"], digest))
    key = f"AWS4{SECRET}".encode()
    for part in given["scope"].split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return given["region"] if hmac.digest(key, text.encode(), "sha256").hex() == given["signature"] else ""
