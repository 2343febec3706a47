"""Pydantic's errors about a request, as short texts that say what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["plain_words"]

# By pydantic's error type; names in braces are keys of its ctx.
# https://docs.pydantic.dev/latest/errors/validation_errors/
_WORDS: Final = {
    "missing": "is missing",
    "extra_forbidden": "unknown here",
    "greater_than_equal": "expected at least {ge}",
    "greater_than": "expected more than {gt}",
    "less_than_equal": "expected at most {le}",
    "less_than": "expected less than {lt}",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a whole number with fewer digits",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected a text",
    "string_too_long": "expected at most {max_length} characters",
    "string_too_short": "expected at least {min_length} characters",
    "list_type": "expected a list",
    "too_long": "expected at most {max_length} values",
    "too_short": "expected at least {min_length} values",
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
    "json_invalid": "not JSON",
}


def plain_words(error: Mapping[str, Any]) -> str:
    """Return the text for ``error``, one of ``ValidationError.errors()``."""
    words = _WORDS.get(error["type"])
    if words is None:
        return re.sub(r"^(Input|Value) should ", "expected to ", error["msg"])
    context = {name: _plain(value) for name, value in error.get("ctx", {}).items()}
    return words.format_map(context)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else repr(value)
    return str(value).replace("'", "")
