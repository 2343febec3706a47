"""The process that matches bodies; only matching.py runs it, by its path.

It reads requests from stdin and answers each with one byte on stdout. SIGALRM ends a match that
exceeds its limit. Its default action needs nothing from Python, so it works inside the regular
expression engine, and after the daemon was killed.

A request: the sizes of expression, charset and body in bytes and the limit in ms, each 32 bits
in network order; then expression, charset and body.
"""

from __future__ import annotations

import codecs
import re
import signal
import struct
import sys
from functools import lru_cache

HEADER = struct.Struct("!IIII")


@lru_cache(maxsize=4096)
def _compile(expression: str) -> re.Pattern[str]:
    return re.compile(expression)


def _text(body: bytes, charset: str) -> str:
    try:
        codecs.lookup(charset)
        return body.decode(charset, "replace")
    except (LookupError, ValueError, AssertionError):
        return body.decode("utf-8", "replace")


def problem(expression: str) -> str:
    """Return why an expression does not compile, "" where it does."""
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return ""


def main() -> None:
    """Answer until stdin ends; with the argument ``compile``, say what problem() finds."""
    read, write = sys.stdin.buffer, sys.stdout.buffer
    if sys.argv[1:2] == ["compile"]:
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
        write.write(problem(read.read().decode()).encode())
        return
    while len(header := read.read(HEADER.size)) == HEADER.size:
        *sizes, limit_ms = HEADER.unpack(header)
        expression, charset, body = (read.read(size) for size in sizes)
        signal.setitimer(signal.ITIMER_REAL, limit_ms / 1000)
        text = _text(body, charset.decode("ascii", "replace"))
        found = _compile(expression.decode()).search(text)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write.write(b"1" if found else b"0")
        write.flush()


if __name__ == "__main__":
    main()
