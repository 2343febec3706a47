"""The process that matches; only lane.py runs it, by its path.

It reads requests from stdin and answers each with a number on stdout. A signal ends a match that
exceeds its limit. Its default action needs nothing from Python, so it works inside the regular
expression engine, and after the daemon was killed.

A request: what to do, the sizes of expression, charset and body in bytes and the limit in ms, each
32 bits in network order; then expression, charset and body. The answer, 32 bits: the place after
the match in bytes, or 0 for a match of SEARCH and JSON; negative without one.

The body of SELECT is texts with NUL between them. The limit is time of the processor, so that a
busy machine makes no expression too slow. The answer is the size of what follows, which is JSON:
the places of the texts that match, or why the expression does not compile.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import signal
import struct
import sys
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate

HEADER = struct.Struct("!IIIII")
ANSWER = struct.Struct("!i")
# Search in a whole body; in lines of a dialogue, from its beginning; JMESPath in JSON; each text.
SEARCH, LINES, JSON, SELECT = 0, 1, 2, 3
NO_MATCH, NOT_JSON = -1, -2
COMPILING_ERRORS = (re.error, RecursionError, OverflowError)

# Other names for what browsers read in them. Source: the WHATWG's encoding standard, 4.2.
_WEB_CHARSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "tis-620": "cp874",
    "iso8859-11": "cp874",
}
# Labels of the standard that Python does not know.
_WEB_LABELS = {
    label: name
    for name, labels in {
        "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
        "utf-16-be": "unicodefffe",
        "utf-16-le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff",
        "iso8859-6": "csiso88596e csiso88596i iso-8859-6-e iso-8859-6-i",
        "iso8859-7": "sun_eu_greek",
        "iso8859-8": "csiso88598e csiso88598i iso-8859-8-e iso-8859-8-i logical visual",
        "iso8859-15": "csisolatin9",
        "koi8-r": "koi koi8",
        "koi8-u": "koi8-ru",
        "mac-roman": "csmacintosh mac x-mac-roman",
        "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
        "cp874": "dos-874 iso885911 windows-874",
        "cp1252": "iso88591",
        "cp1254": "iso88599",
        "gb18030": "csgb2312 gb_2312 gb_2312-80 x-gbk",
        "big5hkscs": "cn-big5 x-x-big5",
        "euc_jp": "cseucpkdfmtjapanese x-euc-jp",
        "cp932": "windows-31j x-sjis",
        "cp949": "cseuckr csksc56011987 iso-ir-149 ks_c_5601-1989 ksc_5601 windows-949",
        **{f"iso8859-{part}": f"iso8859{part}" for part in (2, 3, 4, 5, 10, 13, 14)},
        **{f"cp125{page}": f"x-cp125{page}" for page in (0, 1, 3, 5, 6, 7, 8)},
    }.items()
    for label in labels.split()
}
_WEB_LABELS |= {"x-cp1252": "cp1252", "x-cp1254": "cp1254"}
_WEB_LABELS |= {f"iso8859{part}": f"iso8859-{part}" for part in (6, 7, 8, 15)}
# The others that the standard has, by Python's names; browsers do not know any other.
_KNOWN_CHARSETS = frozenset(
    ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp866", "koi8-r", "koi8-u", "mac-roman"]
    + ["mac-cyrillic", "cp874", "euc_jp", "iso2022_jp", "cp932", "gb18030", "big5hkscs", "cp949"]
    + [f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)]
    + [f"cp125{page}" for page in range(9)]
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
)
# A page names its charset in its first bytes. Source: the WHATWG's HTML standard, 4.2.5.4.
_META_BYTES = 1024
_META = re.compile(
    rb"""<meta\s[^>]*?charset\s*=\s*["']?\s*([\w.:+-]{1,64})"""
    rb"""|\A<[?]xml\s[^>]*?encoding\s*=\s*["']\s*([\w.:+-]{1,64})""",
    re.ASCII | re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def _compile(expression: str, flags: int) -> re.Pattern[str]:
    return re.compile(expression, flags)


@lru_cache(maxsize=32)
def _compile_for_selection(expression: str) -> re.Pattern[str]:
    # Anyone who may read has expressions of any size: keep few of them.
    re.purge()
    return re.compile(expression)


def text_of(body: bytes, charset: str) -> str:
    """Return a body as a browser reads it: by its byte order mark, its charset or its meta tag."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    if not charset:
        named = _META.search(body[:_META_BYTES])
        charset = (named[1] or named[2]).decode() if named else "utf-8"
        if charset.lower().startswith("utf-16"):
            # What could be read to here is not in it.
            charset = "utf-8"
    try:
        known = codecs.lookup(_WEB_LABELS.get(charset.lower(), charset)).name
        known = _WEB_CHARSETS.get(known, known)
        return body.decode(known if known in _KNOWN_CHARSETS else "utf-8", "replace")
    except (LookupError, ValueError, AssertionError):
        return body.decode("utf-8", "replace")


def _end(expression: str, body: bytes) -> int:
    # With surrogates, each byte can be counted again.
    text = body.decode("utf-8", "surrogateescape")
    pattern = _compile(expression, re.MULTILINE)
    found = pattern.search(text)
    if found is not None:
        return len(text[: found.end()].encode("utf-8", "surrogateescape"))
    # In most protocols lines end in CRLF, and Python's $ is before LF.
    lines = text.split("\r\n")
    found = pattern.search("\n".join(lines))
    if found is None:
        return NO_MATCH
    # In the body, each end of a line before the match's end is a byte longer.
    ends = list(accumulate(len(line) + 1 for line in lines[:-1]))
    matched = found.string[: found.end()].encode("utf-8", "surrogateescape")
    return len(matched) + bisect_right(ends, found.end())


def _is_true(expression: str, text: str, libraries: str) -> int:
    if libraries not in sys.path:
        sys.path.append(libraries)
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        data = _parsed(text)
    except (ValueError, RecursionError):
        return NOT_JSON
    try:
        return 0 if jmespath.search(expression, data) is True else NO_MATCH
    except (JMESPathError, RecursionError, TypeError, ValueError):
        # A function of a value that has another type, for instance.
        return NO_MATCH


def _parsed(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # Python refuses to read integers of thousands of digits; browsers do not count them.
        return json.loads(text, parse_constant=_refuse, parse_int=float)


def _refuse(constant: str) -> None:
    # NaN and Infinity, which Python reads and no browser does.
    raise ValueError(constant)


def _selected(expression: str, body: bytes) -> bytes:
    try:
        search = _compile_for_selection(expression).search
    except COMPILING_ERRORS as error:
        return json.dumps(str(error)).encode()
    texts = body.decode("utf-8", "replace").split("\0")
    return json.dumps([place for place, text in enumerate(texts) if search(text)]).encode()


def problem(expression: str) -> str:
    """Return why an expression does not compile, "" where it does."""
    try:
        re.compile(expression)
    except COMPILING_ERRORS as error:
        return str(error)
    return ""


def main() -> None:
    """Answer until stdin ends; with the argument ``compile``, say what problem() finds."""
    read, write = sys.stdin.buffer, sys.stdout.buffer
    if sys.argv[1:2] == ["compile"]:
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
        write.write(problem(read.read().decode()).encode())
        return
    libraries = sys.argv[1] if len(sys.argv) > 1 else ""
    while len(header := read.read(HEADER.size)) == HEADER.size:
        what, *sizes, limit_ms = HEADER.unpack(header)
        raw, charset, body = (read.read(size) for size in sizes)
        expression = raw.decode()
        timer = signal.ITIMER_PROF if what == SELECT else signal.ITIMER_REAL
        signal.setitimer(timer, limit_ms / 1000)
        more = b""
        if what == LINES:
            found = _end(expression, body)
        elif what == JSON:
            found = _is_true(
                expression, text_of(body, charset.decode("ascii", "replace")), libraries
            )
        elif what == SELECT:
            more = _selected(expression, body)
            found = len(more)
        else:
            text = text_of(body, charset.decode("ascii", "replace"))
            found = 0 if _compile(expression, 0).search(text) else NO_MATCH
        signal.setitimer(timer, 0)
        write.write(ANSWER.pack(found) + more)
        write.flush()


if __name__ == "__main__":
    try:
        main()
    except ConnectionError:
        # The daemon was killed. What nobody reads any more is not flushed either.
        os._exit(0)
