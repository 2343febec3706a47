"""Servers' certificates, good and bad, signed by an authority of the tests."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme

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
