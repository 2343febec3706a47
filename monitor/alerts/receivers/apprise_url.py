"""A service that Apprise knows, by its URL, which is a secret.

Apprise is imported when it is needed first: it takes a second, and many MB.
"""

from __future__ import annotations

import hashlib
import html
import logging
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from urllib.parse import unquote

from monitor.alerts.receivers import Message, Outcome
from monitor.alerts.texts import body_of, title_of
from monitor.files.threads import begin_aside
from monitor.validation import one_line

__all__ = ["AppriseUrl", "problem_of"]

_LIMIT_S = 60.0
# How long a service may take to answer: Apprise gives most of them 4 s, and what one accepts after
# that would be sent again and again. Mail servers look for spam before they accept.
_PATIENCE_S = 50.0
# Pieces of a URL that are too short to be secrets, and would hide parts of plain words.
_LEAST_SECRET = 4
_MOST_LINES = 5
# Characters around a title that becomes a line of the body.
_MARKUP = 20
_thread = threading.local()
_TYPES = {"opened": "failure", "repeated": "failure", "resolved": "success", "test": "info"}


class AppriseUrl:
    """One line of a urls_file."""

    refresh_s = None

    def __init__(self, receiver: str, url: str) -> None:
        self.receiver = receiver
        self.key = hashlib.sha256(url.encode()).hexdigest()[:16]
        self._url = url
        # An attempt that did not end in time, and of which delivery.
        self._busy: Future[Outcome] | None = None
        self._delivery = ""

    async def send(self, message: Message) -> Outcome:
        """Send a message; see :class:`Target`."""
        import asyncio

        service = scheme_of(self._url)
        busy, self._busy = self._busy, None
        if busy is not None and not busy.done():
            # A library that hangs gets no second thread.
            self._busy = busy
            return Outcome(accepted=False, said=f"{service}: the last attempt has not ended")
        if busy is not None and self._delivery == message.delivery and busy.exception() is None:
            late = busy.result()
            if late.accepted:
                return late
        busy = begin_aside(lambda: _notify(self._url, message))
        try:
            async with asyncio.timeout(_LIMIT_S):
                return await asyncio.shield(asyncio.wrap_future(busy))
        except TimeoutError:
            # The next attempt sees how it ended.
            self._busy, self._delivery = busy, message.delivery
            return Outcome(accepted=False, said=f"{service}: no answer within {_LIMIT_S:g} s")


def scheme_of(url: str) -> str:
    """Return the name of the service, the one part of a URL that is not a secret."""
    return url.partition("://")[0].lower()


def problem_of(url: str) -> str | None:
    """Return what is wrong with a URL, or None; raises ModuleNotFoundError without Apprise."""
    if _server(url) is None:
        return f"a {scheme_of(url)} URL that Apprise does not understand"
    return None


def _server(url: str) -> Any:
    import apprise

    # It logs what it does not like about a URL, with the URL.
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    asset = apprise.AppriseAsset(app_id="recodex-monitor", app_desc="recodex-monitor")
    server = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if server is not None:
        if "rto=" not in url:
            server.socket_read_timeout = _PATIENCE_S
        if "cto=" not in url and scheme_of(url) in ("mailto", "mailtos"):
            # The one limit of a connection to a mail server.
            server.socket_connect_timeout = _PATIENCE_S
        if server.overflow_mode == "upstream":
            # Services refuse what is too long.
            server.overflow_mode = apprise.OverflowMode.TRUNCATE
    return server


def _notify(url: str, message: Message) -> Outcome:
    """Send a message in the calling thread."""
    service = scheme_of(url)
    try:
        server = _server(url)
        if server is None:
            return Outcome(accepted=False, refused=True, said=str(problem_of(url)))
        _own_message_ids(server)
        heard = _Heard()
        logger = logging.getLogger("apprise")
        logger.addHandler(heard)
        _thread.delivery = message.delivery
        try:
            accepted = server.notify(**_content(server, message), notify_type=_TYPES[message.event])
        finally:
            _thread.delivery = None
            logger.removeHandler(heard)
    except ModuleNotFoundError:
        return Outcome(accepted=False, said="the Python module apprise is not installed")
    except Exception as error:  # noqa: BLE001 - a hundred services, each with its own
        return Outcome(accepted=False, said=f"{service}: failed with {type(error).__name__}")
    if accepted:
        return Outcome(accepted=True, said=f"{service}: accepted")
    return Outcome(accepted=False, said=f"{service}: {_without_secrets(heard.text(), url)}")


def _content(server: Any, message: Message) -> dict[str, Any]:
    """Return title and body in a format that the service shows as it is meant, within its limit."""
    # Apprise's newer versions know several formats of a service, others one.
    form = server.notify_format
    if hasattr(server, "resolve_format"):
        form = server.resolve_format("text")
    title = title_of(message.event, message.incidents)
    room = server.body_maxlen
    convert: Callable[[str], str] = str
    if form == "html":
        convert = _as_html
    if server.title_maxlen <= 0:
        # It becomes a line of the body.
        title = convert(title)
        room -= len(title) + _MARKUP
    body = convert(
        body_of(
            message.event,
            message.incidents,
            message.page,
            fits=lambda text: len(convert(text)) <= room,
        )
    )
    return {"title": title, "body": body, "body_format": form}


def _as_html(text: str) -> str:
    return html.escape(text, quote=False).replace("\n", "<br/>\n")


class _Heard(logging.Handler):
    """The warnings and errors that Apprise logs in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self._ident = threading.get_ident()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread != self._ident or len(self._lines) >= _MOST_LINES:
            return
        text = record.getMessage()
        # The cause of a warning is in a line for debugging.
        if record.levelno >= logging.WARNING or "xception" in text:
            self._lines.append(text)

    def text(self) -> str:
        return " ".join(" ".join(self._lines).split())[:1000] or "not accepted"


def _without_secrets(text: str, url: str) -> str:
    """Return ``text`` with everything in it that is a part of the URL replaced."""
    rest = url.partition("://")[2]
    pieces = set(re.split(r"[/:@?&=,;#]", rest)) | set(re.split(r"[/:@?&=,;#]", unquote(rest)))
    for piece in sorted(pieces, key=len, reverse=True):
        if len(piece) >= _LEAST_SECRET:
            text = text.replace(piece, "***")
    return one_line(text[:300])


def _own_message_ids(server: Any) -> None:
    """Make mail carry the id of the delivery as its Message-ID.

    Apprise has no option for it. A mail client, or a person, recognizes a repeated attempt by it.
    """
    for kind in type(server).__mro__:
        module = sys.modules.get(kind.__module__)
        make = getattr(module, "make_msgid", None)
        if make is None or getattr(make, "delivers", False):
            continue

        def make_msgid(
            idstring: str | None = None, domain: str | None = None, make: Any = make
        ) -> str:
            delivery = getattr(_thread, "delivery", None)
            if delivery is None:
                return str(make(idstring=idstring, domain=domain))
            return f"<{delivery}@{domain or 'recodex-monitor'}>"

        make_msgid.delivers = True  # type: ignore[attr-defined]
        module.make_msgid = make_msgid  # type: ignore[union-attr]
