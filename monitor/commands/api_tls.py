"""TLS of a command that uses the API: which certificate it trusts, and which it shows."""

from __future__ import annotations

import os
import ssl
from typing import Any

from requests.adapters import HTTPAdapter

from monitor.errors import UsageError

__all__ = ["HttpsAdapter", "client_context"]

_BUNDLE_VARIABLE = "REQUESTS_CA_BUNDLE"


def client_context(
    ca_file: str | None, client_certificate: str | None, own: str | None
) -> ssl.SSLContext:
    """Return the TLS context; raises UsageError for a file that is not usable.

    ``ca_file`` has the authorities to trust instead of the system's. ``own`` is the certificate in
    the daemon's config: without a ``ca_file`` it is trusted under any name, and nothing else is.
    """
    if ca_file is not None:
        context = _trusting(ca_file, "--ca-file")
    elif own is not None and os.access(own, os.R_OK):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        # The certificate itself may be trusted, without its authority.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _use(lambda: context.load_verify_locations(own), "api.tls.certificate", own)
    elif bundle := os.environ.get(_BUNDLE_VARIABLE):
        context = _trusting(bundle, _BUNDLE_VARIABLE)
    else:
        context = ssl.create_default_context()
    if client_certificate is not None:
        file = client_certificate
        # Without a password OpenSSL would ask for one at the terminal.
        load = context.load_cert_chain
        _use(lambda: load(file, password=lambda: ""), "--client-certificate", file)
    return context


def _trusting(file: str, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _use(lambda: context.load_verify_locations(file), name, file)
    return context


def _use(load: Any, name: str, file: str) -> None:
    try:
        load()
    except OSError as error:  # ssl.SSLError is one
        problem = "not valid PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(f"{name}: cannot use {file}: {problem}") from None


class HttpsAdapter(HTTPAdapter):
    """Lets requests connect with a TLS context."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Create the connections' pool, with the context."""
        options["ssl_context"] = self._context
        if not self._context.check_hostname:
            options["assert_hostname"] = False
        super().init_poolmanager(*args, **options)

    def cert_verify(self, *_: Any) -> None:
        """Leave the decision to the context."""
