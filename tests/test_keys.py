"""Keys and certificates: what they say, when they are renewed, and what other programs think of them."""

from __future__ import annotations

import io
import ipaddress
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paramiko
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from machinekit import keys, ssh

NAMES = ["192.0.2.7", "2001:db8::1", "node1", "localhost", "node1"]


@pytest.fixture(scope="module")
def ca() -> keys.Pair:
    return keys.authority("node1")


def loaded(pair: keys.Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.cert)


def test_the_authority_signs_and_nothing_else(ca: keys.Pair) -> None:
    certificate = loaded(ca)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
    assert certificate.issuer == certificate.subject
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("kind", ["client", "server"])
def test_a_leaf_is_for_one_purpose(ca: keys.Pair, kind: str) -> None:
    certificate = loaded(keys.client(ca, "node1") if kind == "client" else keys.server(ca, NAMES))
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if kind == "client" else ExtendedKeyUsageOID.SERVER_AUTH
    extensions = certificate.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    # RFC 5280, 4.2.1.1: the issuer's key identifier
    authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    subject = loaded(ca).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == subject.digest
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    certificate.verify_directly_issued_by(loaded(ca))
    assert loaded(keys.client(ca, "x")).not_valid_after_utc - datetime.now(UTC) > timedelta(days=364)
    assert datetime.now(UTC) - certificate.not_valid_before_utc > timedelta(minutes=4)


def test_a_server_has_each_name_once(ca: keys.Pair) -> None:
    names = loaded(keys.server(ca, NAMES)).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [
        x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.DNSName("node1"),
        x509.DNSName("localhost"),
    ]


@pytest.mark.parametrize(
    ("name", "as_"),
    [("münchen.example", x509.DNSName("xn--mnchen-3ya.example")), ("*.example", x509.DNSName("*.example"))],
)
def test_names_are_written_as_rfc_5280_wants_them(ca: keys.Pair, name: str, as_: x509.GeneralName) -> None:
    pair = keys.server(ca, [name])
    assert list(loaded(pair).extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [as_]
    assert not keys.must_renew(pair.cert, [name])


def test_a_long_name_is_cut_to_what_x520_allows() -> None:
    names = loaded(keys.authority("n" * 63)).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [len(str(name.value)) for name in names] == [64]


@pytest.mark.parametrize(
    ("names", "days", "must"),
    [
        ([], 0, False),
        (["node1", "192.0.2.7"], 0, False),
        (["192.0.2.8"], 0, True),
        (["node2"], 0, True),
        (["2001:0DB8:0::1"], 0, False),
        ([], 242, False),
        ([], 244, True),
        ([], 400, True),
    ],
)
def test_must_renew(ca: keys.Pair, names: list[str], days: int, must: bool) -> None:
    now = datetime.now(UTC) + timedelta(days=days)
    assert keys.must_renew(keys.server(ca, NAMES).cert, names, now) is must


def test_a_certificate_without_names_misses_every_name(ca: keys.Pair) -> None:
    pair = keys.client(ca, "x")
    assert keys.must_renew(pair.cert, ["x"])
    assert not keys.must_renew(pair.cert, [])


def test_openssl_verifies_the_chain_strictly(ca: keys.Pair, tmp_path: Path) -> None:
    server = keys.server(ca, NAMES)
    (tmp_path / "ca.pem").write_bytes(ca.cert)
    (tmp_path / "server.pem").write_bytes(server.cert)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "node1"]
    files = ["-CAfile", "ca.pem", "server.pem"]
    result = subprocess.run([*command, *files], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "server.pem: OK\n"), result.stderr


def test_ssh_keys_are_read_by_openssh_and_paramiko(tmp_path: Path) -> None:
    private, public = keys.ssh_key("machinekit node1")
    file = tmp_path / "id"
    file.write_bytes(private)
    file.chmod(0o600)
    kind, base64, comment = public.split(" ", 2)
    assert (kind, comment) == ("ssh-ed25519", "machinekit node1")
    read = subprocess.run(["ssh-keygen", "-y", "-f", str(file)], capture_output=True, text=True, check=True)
    assert read.stdout.split()[:2] == [kind, base64]
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(private.decode()))
    assert key.get_base64() == base64
    assert key.fingerprint == ssh.fingerprint(public)
    assert keys.ssh_key("machinekit node1")[0] != private
