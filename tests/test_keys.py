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
    assert not keys.must_renew(pair.cert, ca.cert, [name])


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
    assert keys.must_renew(keys.server(ca, NAMES).cert, ca.cert, names, clocks(days)) is must


def clocks(*days: float) -> keys.Clocks:
    """Clocks that are so many days away from this computer's."""
    now = datetime.now(UTC)
    return keys.Clocks(now + timedelta(days=min(days)), now + timedelta(days=max(days)))


def test_a_certificate_without_names_misses_every_name(ca: keys.Pair) -> None:
    pair = keys.client(ca, "x")
    assert keys.must_renew(pair.cert, ca.cert, ["x"])
    assert not keys.must_renew(pair.cert, ca.cert)


def test_a_certificate_of_another_authority_must_be_renewed(ca: keys.Pair) -> None:
    assert keys.must_renew(keys.client(ca, "x").cert, keys.authority("node1").cert)


@pytest.mark.parametrize("days", [(-1 / 24, 0), (0, 1 / 24), (-365, 0), (0, 365)])
def test_a_certificate_is_valid_by_each_of_the_clocks(ca: keys.Pair, days: tuple[float, float]) -> None:
    judges = clocks(*days)
    one = keys.authority("node1", judges, ca.key)
    certificate = loaded(keys.server(one, NAMES, judges))
    for issued in (loaded(one), certificate):
        assert issued.not_valid_before_utc <= judges.earliest
        assert issued.not_valid_after_utc >= judges.latest + timedelta(days=364)
    assert not keys.must_renew(one.cert, one.cert, (), judges)


def test_what_is_not_valid_yet_must_be_renewed(ca: keys.Pair) -> None:
    ahead = clocks(1 / 24)  # made when this computer's clock was an hour ahead
    one = keys.authority("node1", ahead)
    assert keys.must_renew(one.cert, one.cert)
    assert not keys.must_renew(one.cert, one.cert, clocks=ahead)


def test_a_reissued_authority_vouches_for_what_it_has_issued(ca: keys.Pair, tmp_path: Path) -> None:
    server = keys.server(ca, NAMES)
    again = keys.authority("node1", clocks(0), ca.key)
    assert loaded(again).serial_number != loaded(ca).serial_number
    assert verified_by_openssl(tmp_path, again.cert, server.cert) == "server.pem: OK\n"


def verified_by_openssl(directory: Path, ca: bytes, server: bytes, *options: str, between: bytes = b"") -> str:
    """What openssl verify says of a server's certificate, which may bring what is between it and its root."""
    (directory / "ca.pem").write_bytes(ca)
    (directory / "server.pem").write_bytes(server)
    (directory / "between.pem").write_bytes(between)
    chain = ["-untrusted", "between.pem"] if between else []
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "node1", *options]
    files = ["-CAfile", "ca.pem", *chain, "server.pem"]
    result = subprocess.run([*command, *files], cwd=directory, capture_output=True, text=True, check=False)
    return result.stdout or result.stderr


def made_by_openssl(directory: Path, *, kind: str = "rsa", days: int = 30, word: str = "") -> tuple[bytes, bytes]:
    """A root of somebody else's and what it has issued: the intermediate's bundle and its key."""
    new = {"rsa": ["rsa:2048"], "ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], "ed25519": ["ed25519"]}[kind]
    usage = ["-addext", "keyUsage=critical,keyCertSign"]
    extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
    (directory / "extensions").write_text(extensions)
    keyed = ["-passout", f"pass:{word}"] if word else ["-nodes"]
    for words in (
        [
            "req",
            "-x509",
            "-newkey",
            *new,
            "-nodes",
            "-keyout",
            "root.key",
            "-out",
            "root.pem",
            "-subj",
            "/CN=root",
            *usage,
        ],
        ["req", "-newkey", *new, *keyed, "-keyout", "sub.key", "-out", "sub.csr", "-subj", "/CN=sub"],
        [
            *["x509", "-req", "-in", "sub.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial"],
            *["-days", str(days), "-extfile", "extensions", "-out", "sub.pem"],
        ],
    ):
        subprocess.run(["openssl", *words], cwd=directory, capture_output=True, check=True)
    bundle = (directory / "sub.pem").read_bytes() + (directory / "root.pem").read_bytes()
    return bundle, (directory / "sub.key").read_bytes()


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
def test_an_intermediate_of_the_users_own_issues(kind: str, tmp_path: Path) -> None:
    bundle, key = made_by_openssl(tmp_path, kind=kind)
    ca = keys.foreign_authority(bundle, key)
    server = keys.server(ca, NAMES)
    leaf, sub = x509.load_pem_x509_certificates(server.cert)  # it brings the intermediate, and not the root
    assert sub.subject.rfc4514_string() == "CN=sub"
    assert leaf.not_valid_after_utc <= sub.not_valid_after_utc
    root = (tmp_path / "root.pem").read_bytes()
    assert verified_by_openssl(tmp_path, root, server.cert, between=server.cert) == "server.pem: OK\n"
    # what the engine trusts: whatever else hangs from the root stays outside
    assert keys.issuer(bundle) == (tmp_path / "sub.pem").read_bytes()
    assert verified_by_openssl(tmp_path, keys.issuer(bundle), server.cert, "-partial_chain") == "server.pem: OK\n"
    assert not keys.must_renew(server.cert, bundle, NAMES)


def test_an_authority_that_cannot_issue_is_refused(tmp_path: Path, ca: keys.Pair) -> None:
    bundle, key = made_by_openssl(tmp_path)
    leaf = keys.server(keys.Pair(bundle, key), NAMES)
    outdated = keys.authority("x", clocks(-4000))
    curve = ["openssl", "ecparam", "-name", "secp112r1", "-genkey", "-noout"]
    odd = subprocess.run(curve, capture_output=True, check=True)
    protected = tmp_path / "protected"
    protected.mkdir()
    for cert, its_key, said in (
        (b"no PEM", key, "is not PEM"),
        (bundle, b"no PEM", "the key cannot be used"),
        (bundle, odd.stdout, "the key cannot be used: Curve"),
        (bundle, ca.key, "not the one of the first certificate"),
        (leaf.cert, leaf.key, "is not the certificate of an authority"),
        (outdated.cert, outdated.key, "is valid from"),
        (*made_by_openssl(protected, word="geheim"), "protected by a passphrase"),
    ):
        with pytest.raises(ValueError, match=said):
            keys.foreign_authority(cert, its_key)


def test_openssl_verifies_the_chain_strictly(ca: keys.Pair, tmp_path: Path) -> None:
    assert verified_by_openssl(tmp_path, ca.cert, keys.server(ca, NAMES).cert) == "server.pem: OK\n"


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
