"""POSTs a body, with limits for everything; blocks."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
import pycurl

from monitor import __version__
from monitor.alerts.urls import web_url
from monitor.validation import one_line

__all__ = ["Answer", "Body", "encoded_pieces", "post"]

T = TypeVar("T")

_CONNECT_S = 5.0
_MOST_REDIRECTS = 3
# Of an answer; the rest is not read.
_MOST_BYTES = 2048
_SHOWN = 200
# Members of a JSON array that are encoded at a time.
_IN_ONE_PIECE = 100
_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """The status of an answer, 0 without one, and what it or the failure said."""

    status: int
    said: str
    retry_after_s: float | None = None


class Body:
    """What is posted, with its size in bytes: pieces that are made again each time.

    The message about an outage of thousands of sites is never in memory as a whole.
    """

    def __init__(self, pieces: Callable[[], Iterable[bytes]]) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces()))


def encoded_pieces(items: Sequence[T], form: Callable[[T], object]) -> Iterator[bytes]:
    """Yield the JSON of an array with the ``form`` of each item, in pieces."""
    yield b"["
    for start in range(0, len(items), _IN_ONE_PIECE):
        some = _encode([form(item) for item in items[start : start + _IN_ONE_PIECE]])
        yield some[1:-1] if start == 0 else b"," + some[1:-1]
    yield b"]"


def post(url: str, body: Body, headers: Mapping[str, str], *, limit_s: float) -> Answer:
    """POST ``body`` and return the answer, within ``limit_s``, after at most three redirects.

    Only redirects that keep method and body are followed (307 and 308), and never from https to
    http.
    """
    ends_at = time.monotonic() + limit_s
    try:
        url = web_url(url)
    except ValueError:
        return Answer(0, "not a URL")
    for _ in range(_MOST_REDIRECTS + 1):
        status, said, found = _post(url, body, headers, ends_at - time.monotonic())
        location = found.get("location")
        if status in (301, 302, 303, 307, 308) and location:
            try:
                target = web_url(location.encode("latin-1").decode("utf-8", "replace"), url)
            except ValueError:
                return Answer(status, f"{status}, redirects to what is not a URL of HTTP")
            place = urlsplit(target)
            shown = f"{place.scheme}://{place.netloc.rpartition('@')[2]}"
            if status < 307 or (url.startswith("https:") and place.scheme != "https"):
                said = f"{status}, redirects to {shown}, which is not followed; change the URL"
                return Answer(status, one_line(said))
            url = target
            continue
        return Answer(status, said, _retry_after(found.get("retry-after")))
    return Answer(status, "too many redirects")


def _post(
    url: str, body: Body, headers: Mapping[str, str], limit_s: float
) -> tuple[int, str, dict[str, str]]:
    curl = pycurl.Curl()
    found: dict[str, str] = {}
    content = bytearray()

    def header(line: bytes) -> None:
        text = line.decode("latin-1")
        if text.startswith("HTTP/"):
            found.clear()
        name, colon, value = text.partition(":")
        if colon:
            found[name.strip().lower()] = value.strip()

    def take(piece: bytes) -> int | None:
        content.extend(piece[: _MOST_BYTES - len(content)])
        # Enough: another number than len(piece) ends the transfer.
        return 0 if len(content) >= _MOST_BYTES else None

    try:
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(_CONNECT_S * 1000))
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(limit_s * 1000)))
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.POSTFIELDSIZE_LARGE, body.size)
        curl.setopt(pycurl.READFUNCTION, _reader(body))
        curl.setopt(pycurl.USERAGENT, f"recodex-monitor/{__version__}")
        # Without waiting for "100 Continue" before a large body.
        lines = [f"{name}: {value}" for name, value in headers.items()]
        curl.setopt(pycurl.HTTPHEADER, [*lines, "Expect:"])
        curl.setopt(pycurl.HEADERFUNCTION, header)
        curl.setopt(pycurl.WRITEFUNCTION, take)
        problem = ""
        try:
            curl.perform()
        except pycurl.error as error:
            # The status says whether it was accepted; the body need not come.
            problem = one_line(str(error.args[1]))
        status = int(curl.getinfo(pycurl.RESPONSE_CODE))
        if not 200 <= status < 600:
            return 0, problem or f"answered with the status {status}", {}
        text = " ".join(bytes(content).decode("utf-8", "replace").split())[:_SHOWN]
        return status, one_line(f"{status} {text}".strip()), found
    finally:
        curl.close()


def _reader(body: Body) -> Callable[[int], bytes]:
    """Return a function that gives the next bytes, as many as curl wants at most."""
    pieces = iter(body.pieces())
    rest = b""

    def read(most: int) -> bytes:
        nonlocal rest
        rest = rest or next(pieces, b"")
        given, rest = rest[:most], rest[most:]
        return given

    return read


def _retry_after(text: str | None) -> float | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
