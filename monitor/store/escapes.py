"""Text in a database whose encoding does not have all characters, such as LATIN1.

Each character that it lacks is stored as an escape: a backslash, ``U`` and eight hexadecimal digits
in upper case. Reading undoes that, so that the parts get back what they stored. In JSON and in the
rows of COPY the backslash is doubled, as every backslash there.
"""

from __future__ import annotations

import codecs
import functools
import io
import re
from collections.abc import Callable
from typing import Any, ClassVar

import psycopg2.extensions

from monitor.store.interface import JsonText

__all__ = ["Escapes", "escape", "escapes_of"]

# All of Unicode, or no conversion at all.
_COMPLETE = {"UTF8", "SQL_ASCII"}
# In these, Python and PostgreSQL differ in some characters. All of them have ASCII.
_SEVERAL_BYTES = ("EUC", "JOHAB")
# Names of error handlers.
_HANDLERS = "recodex-monitor-escape", "recodex-monitor-double-escape"
# Each with one backslash, and with two.
_ESCAPE = re.compile(r"\\U([0-9A-F]{8})"), re.compile(r"\\\\U([0-9A-F]{8})")
_LITERAL = re.compile(r"\\(?=U[0-9A-F]{8})"), re.compile(r"\\\\(?=U[0-9A-F]{8})")
_BACKSLASH = ord("\\")
# The numbers of the types text, varchar and unknown; json and jsonb.
_TEXT_TYPES, _JSON_TYPES = (25, 1043, 705), (114, 3802)


class Escapes:
    """The escapes for one encoding, by PostgreSQL's name."""

    def __init__(self, encoding: str) -> None:
        known = not encoding.startswith(_SEVERAL_BYTES)
        self._codec = psycopg2.extensions.encodings.get(encoding, "ascii") if known else "ascii"

    def stored(self, text: str, *, doubled: bool = False) -> str:
        """Return ``text`` as it is stored; ``doubled`` for JSON, and for the rows of COPY."""
        backslash = "\\\\" if doubled else "\\"
        text = _LITERAL[doubled].sub(lambda _: f"{backslash}U{_BACKSLASH:08X}", text)
        if text.isascii():
            return text
        return text.encode(self._codec, _HANDLERS[doubled]).decode(self._codec)

    @staticmethod
    def read(stored: str, *, doubled: bool = False) -> str:
        """Return the text that is stored so."""
        if "\\U" not in stored:
            return stored

        def unescape(found: re.Match[str]) -> str:
            number = int(found[1], 16)
            if number == _BACKSLASH:
                return "\\\\" if doubled else "\\"
            character = chr(number) if 0x80 <= number < 0x110000 else ""
            # Others were not escaped here.
            return found[0] if not character or _is_half(character) else character

        return _ESCAPE[doubled].sub(unescape, stored)


def escape(raw: psycopg2.extensions.connection) -> None:
    """Make a connection store and read escapes, if its database's encoding needs them.

    It must have a cursor factory, which is kept.
    """
    encoding = raw.info.parameter_status("server_encoding")
    if encoding is None or encoding in _COMPLETE:
        return
    escapes = Escapes(encoding)
    base: Any = raw.cursor_factory
    raw.cursor_factory = type("_EscapingCursor", (_Cursor, base), {"escapes": escapes})
    for types, doubled in ((_TEXT_TYPES, False), (_JSON_TYPES, True)):
        read = functools.partial(_read, doubled=doubled)
        kind = psycopg2.extensions.new_type(types, f"ESCAPED_{doubled}", read)
        psycopg2.extensions.register_type(kind, raw)


def escapes_of(raw: psycopg2.extensions.connection) -> Escapes | None:
    """Return the escapes that :func:`escape` set up for a connection, or None."""
    found: Escapes | None = getattr(raw.cursor_factory, "escapes", None)
    return found


def _read(value: str | None, cursor: Any, *, doubled: bool) -> str | None:
    del cursor
    return None if value is None else Escapes.read(value, doubled=doubled)


class _Cursor(psycopg2.extensions.cursor):
    """Escapes parameters and the rows of COPY."""

    escapes: ClassVar[Escapes]

    def execute(self, query: Any, vars: Any = None) -> None:
        super().execute(query, self._stored(vars))

    def mogrify(self, query: Any, vars: Any = None) -> bytes:
        return super().mogrify(query, self._stored(vars))

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        if "FROM STDIN" in sql:
            file = io.BytesIO(self.escapes.stored(file.read().decode(), doubled=True).encode())
        super().copy_expert(sql, file, size)

    def _stored(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.escapes.stored(value, doubled=isinstance(value, JsonText))
        if isinstance(value, list):
            return [self._stored(each) for each in value]
        if isinstance(value, tuple):
            return tuple(map(self._stored, value))
        return value


def _is_half(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def _handler(backslash: str) -> Callable[[UnicodeError], tuple[str, int]]:
    def escaped(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        lacking = error.object[error.start : error.end]
        if any(map(_is_half, lacking)):
            raise error  # no database takes these
        return "".join(f"{backslash}U{ord(each):08X}" for each in lacking), error.end

    return escaped


for _name, _backslash in zip(_HANDLERS, ("\\", "\\\\"), strict=True):
    codecs.register_error(_name, _handler(_backslash))
