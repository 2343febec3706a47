"""Servers' certificates, good and bad, signed by an authority of the tests."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SOON = datetime.datetime(2990, 1, 1, tzinfo=datetime.UTC).timestamp()
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC).timestamp()


class Certificates:
    """An authority, and servers with what it signed, well or badly."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.file = str(directory / "ca.pem")
        self.authority.cert_pem.write_to_path(self.file)
        self._stranger = trustme.CA()

    def context(self, kind: str) -> ssl.SSLContext:
        long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        longer = datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC)
        soon = datetime.datetime(2990, 1, 1, tzinfo=datetime.UTC)
        signer = self._stranger if kind == "stranger" else self.authority
        if kind == "chain":
            signer = self.authority.create_child_ca()
        names = ("other.example",) if kind == "wrong-name" else ("localhost", "127.0.0.1")
        expired = kind == "expired"
        certificate = signer.issue_cert(
            *names,
            not_after=long_ago if expired else soon,
            not_before=longer if expired else None,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    def under(self, name: str, *, subject: str, authority: Path) -> ssl.SSLContext:
        """Serve a certificate of an intermediate authority, which is written to a file."""
        between = self.authority.create_child_ca()
        between.cert_pem.write_to_path(authority)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        between.issue_cert(name, common_name=subject).configure_cert(context)
        return context

    def with_an_expired_alternative(self) -> tuple[ssl.SSLContext, float]:
        """Serve a chain with a second way, which has expired; return when that was, too.

        The authority of :attr:`file` is sent as well, signed by another one that is long gone.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        old = ec.generate_private_key(ec.SECP256R1())
        root, gone = _name("Root of today"), _name("Root of yesterday")
        trusted = _signed(root, key.public_key(), root, key, until=2995)
        crossed = _signed(root, key.public_key(), gone, old, until=2021)
        Path(self.file).write_bytes(trusted.public_bytes(serialization.Encoding.PEM))
        own = ec.generate_private_key(ec.SECP256R1())
        leaf = _signed(_name("localhost"), own.public_key(), root, key, until=2990, leaf=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain = Path(self.file).with_name("chain.pem")
        chain.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + leaf.public_bytes(serialization.Encoding.PEM)
            + crossed.public_bytes(serialization.Encoding.PEM)
        )
        context.load_cert_chain(chain)
        return context, datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC).timestamp()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    until: int,
    leaf: bool = False,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(until, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    if leaf:
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())
