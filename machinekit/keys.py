"""Every key and certificate of a machine. Builders only: PEM in, PEM out.

ECDSA P-256 certificates as RFC 5280 wants them (strict verifiers need the key identifiers), and
Ed25519 SSH keys. Each machine has a CA of its own, so one lost directory exposes one machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
CLOCK_SKEW = timedelta(minutes=5)  # a host's clock may be a little behind ours
RENEW_AT = 1 / 3  # of the life left


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    cert: bytes
    key: bytes


def ssh_key(comment: str) -> tuple[bytes, str]:
    """A new Ed25519 key: the private half (OpenSSH PEM) and the public line without a newline."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, f"{public.decode()} {comment}"


def authority(name: str) -> Pair:
    """A new certificate authority for one machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"machinekit CA {name}")
    builder = (
        _certificate(subject, subject, key.public_key(), CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def client(ca: Pair, name: str) -> Pair:
    """A client certificate of the machine's CA."""
    return _leaf(ca, f"machinekit client {name}", ExtendedKeyUsageOID.CLIENT_AUTH, ())


def server(ca: Pair, names: Iterable[str]) -> Pair:
    """A server certificate for these host names and addresses."""
    return _leaf(ca, "machinekit engine", ExtendedKeyUsageOID.SERVER_AUTH, tuple(names))


def must_renew(cert: bytes, names: Iterable[str], now: datetime | None = None) -> bool:
    """Whether a leaf certificate misses one of the names or has less than a third of its life left."""
    certificate = x509.load_pem_x509_certificate(cert)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    left = certificate.not_valid_after_utc - (now or datetime.now(UTC))
    return left < life * RENEW_AT or not {_general_name(name) for name in names} <= set(_names(certificate))


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _leaf(ca: Pair, common_name: str, purpose: x509.ObjectIdentifier, names: tuple[str, ...]) -> Pair:
    issuer = x509.load_pem_x509_certificate(ca.cert)
    issuer_key = serialization.load_pem_private_key(ca.key, None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)  # noqa: S101 (ours are; tells the type checker)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _certificate(_name(common_name), issuer.subject, key.public_key(), LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(dict.fromkeys(map(_general_name, names))), critical=False
        )
    return _pair(builder.sign(issuer_key, hashes.SHA256()), key)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])  # X.520: at most 64 characters


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name if name.isascii() else name.encode("idna").decode())  # RFC 5280, 7.2


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
