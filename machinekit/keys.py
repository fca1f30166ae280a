"""Every key and certificate of a machine. Builders only: PEM in, PEM out.

ECDSA P-256 certificates as RFC 5280 wants them (strict verifiers need the key identifiers), and
Ed25519 SSH keys. Each machine has a CA of its own, so one lost directory exposes one machine; a CA of
the user's own may be given instead, also an intermediate one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
CLOCK_SKEW = timedelta(minutes=5)  # a clock may be a little behind the ones we know of
# what reading a file raises that is no certificate or key
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
RENEW_AT = 1 / 3  # of the life left

IssuerKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Pair:
    """A certificate, perhaps with its chain behind it, and its private key, both PEM."""

    cert: bytes
    key: bytes


@dataclass(frozen=True)
class Clocks:
    """The times that those who judge a certificate take for now: the earliest and the latest."""

    earliest: datetime
    latest: datetime

    @classmethod
    def here(cls) -> Clocks:
        """This computer's alone."""
        now = datetime.now(UTC)
        return cls(now, now)


def ssh_key(comment: str) -> tuple[bytes, str]:
    """A new Ed25519 key: the private half (OpenSSH PEM) and the public line without a newline."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, f"{public.decode()} {comment}"


def ssh_public(private: bytes, comment: str) -> str:
    """The public line of an SSH key of ours, without a newline; raises ValueError when it is none."""
    key = serialization.load_ssh_private_key(private, None)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} {comment}"


def authority(name: str, clocks: Clocks | None = None, key: bytes = b"") -> Pair:
    """A new certificate authority for one machine; with the key of its last one, what that has issued stays valid."""
    private = _issuer_key(key) if key else ec.generate_private_key(ec.SECP256R1())
    return _self_signed(_name(f"machinekit CA {name}"), private, clocks)


def foreign_authority(cert: bytes, key: bytes) -> Pair:
    """The user's own authority, as given: the issuing certificate first, what it hangs from after it.

    Raises ValueError, saying what is wrong, when it cannot issue certificates now.
    """
    try:
        certificate = _first(cert)
    except ValueError:
        raise ValueError("the certificate file is not PEM") from None
    try:
        private = _issuer_key(key)
    except TypeError:
        raise ValueError("the key is protected by a passphrase, which cannot be asked for at each renewal") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the key cannot be used: {error}") from None
    if certificate.public_key() != private.public_key():
        raise ValueError("the key is not the one of the first certificate in the file")
    if not _may_issue(certificate):
        raise ValueError(f"{certificate.subject.rfc4514_string()} is not the certificate of an authority")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) < certificate.not_valid_after_utc:
        until = f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
        raise ValueError(f"{certificate.subject.rfc4514_string()} is valid from {until} only")
    return Pair(cert, key)


def issuer(ca: bytes) -> bytes:
    """The issuing certificate alone: an engine that trusted the rest too would let in whomever a root vouches for."""
    return _first(ca).public_bytes(serialization.Encoding.PEM)


def client(ca: Pair, name: str, clocks: Clocks | None = None) -> Pair:
    """A client certificate of the machine's CA."""
    return _leaf(ca, f"machinekit client {name}", ExtendedKeyUsageOID.CLIENT_AUTH, (), clocks)


def server(ca: Pair, names: Iterable[str], clocks: Clocks | None = None) -> Pair:
    """A server certificate for these host names and addresses."""
    return _leaf(ca, "machinekit engine", ExtendedKeyUsageOID.SERVER_AUTH, tuple(names), clocks)


def must_renew(cert: bytes, ca: bytes, names: Iterable[str] = (), clocks: Clocks | None = None) -> bool:
    """Whether a certificate misses a name, is not `ca`'s, not valid yet, or has less than a third of its life left."""
    clocks = clocks or Clocks.here()
    certificate = _first(cert)
    return (
        clocks.earliest < certificate.not_valid_before_utc
        or clocks.latest >= renewal_due(cert)
        or not _issued_by(certificate, _first(ca))
        or bool(missing_names(cert, names))
    )


def renewal_due(cert: bytes) -> datetime:
    """When a third of the life will be left."""
    certificate = _first(cert)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - life * RENEW_AT


def days_left(cert: bytes) -> int:
    """Whole days until a certificate ends, negative when it has."""
    return (_first(cert).not_valid_after_utc - datetime.now(UTC)).days


def is_pair(cert: bytes, key: bytes) -> bool:
    """Whether the private key is the certificate's; raises one of UNREADABLE when one of them is none."""
    return _first(cert).public_key() == serialization.load_pem_private_key(key, None).public_key()


def is_issued_by(cert: bytes, ca: bytes) -> bool:
    """Whether the authority signed the certificate; raises one of UNREADABLE when one of them is none."""
    return _issued_by(_first(cert), _first(ca))


def missing_names(cert: bytes, names: Iterable[str]) -> list[str]:
    """The host names and addresses that a certificate is not good for."""
    covered = set(_names(_first(cert)))
    return [name for name in names if _general_name(name) not in covered]


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _first(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem)[0]


def _issuer_key(pem: bytes) -> IssuerKey:
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, IssuerKey):
        raise ValueError(f"{type(key).__name__} is not of a kind that signs certificates")
    return key


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as error:
        return error.oid == x509.KeyUsage.oid  # without that extension a key may be used for anything


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _self_signed(subject: x509.Name, key: IssuerKey, clocks: Clocks | None) -> Pair:
    clocks = clocks or Clocks.here()
    builder = (
        _certificate(subject, subject, key.public_key(), clocks, clocks.latest + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return Pair(_pem(_signed(builder, key)), _private_pem(key))


def _leaf(
    ca: Pair, common_name: str, purpose: x509.ObjectIdentifier, names: tuple[str, ...], clocks: Clocks | None
) -> Pair:
    clocks = clocks or Clocks.here()
    chain = x509.load_pem_x509_certificates(ca.cert)
    authority, issuer_key = chain[0], _issuer_key(ca.key)
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(clocks.latest + LEAF_LIFE, authority.not_valid_after_utc)  # no leaf outlives its branch
    builder = (
        _certificate(_name(common_name), authority.subject, key.public_key(), clocks, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_key_identifier(authority), critical=False)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(dict.fromkeys(map(_general_name, names))), critical=False
        )
    between = [_pem(certificate) for certificate in chain if certificate.issuer != certificate.subject]
    return Pair(b"".join([_pem(_signed(builder, issuer_key)), *between]), _private_pem(key))


def _key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    # RFC 5280, 4.2.1.1: as the issuer's own certificate has it
    try:
        subject = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        key = authority.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)  # type: ignore[arg-type]  # `_issuer_key` says so
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject.value)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey,
    clocks: Clocks,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(clocks.earliest - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: IssuerKey) -> x509.Certificate:
    # Ed25519 has its digest built in
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: IssuerKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
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
