"""Parses messages of the topic: each is a valid result or is rejected with a reason. Pure.

A CloudEvent may be in binary or structured mode; any other message is parsed as a result.
Unknown fields are ignored, and optional fields may be missing or null. An incompatible version of
a result has another type, and is rejected instead of misread.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from monitor.aggregation.result_columns import row_of
from monitor.messages import RESULT_TYPE, Result, decode_result, unwrap
from monitor.validation import one_line

__all__ = ["FUTURE_LIMIT_S", "parse_result"]

FUTURE_LIMIT_S = 86400
"""A result scheduled further ahead (s) than this was made with a wrong clock."""


def parse_result(
    value: bytes, headers: Mapping[str, str], *, now: float, keep_s: float
) -> Result | str:
    """Return the result in ``value``, or the reason why it is rejected: a stable word and details.

    ``now`` is in s since the epoch. A result scheduled more than ``keep_s`` before it is too old:
    the rows that would reveal a duplicate are already deleted.
    """
    try:
        value, headers = unwrap(value, headers)
    except ValueError as error:
        return one_line(f"not-a-result: {error}")
    kind = headers.get("ce_type", RESULT_TYPE)
    if kind != RESULT_TYPE:
        return one_line(f"unknown-type: {kind}")
    version = headers.get("ce_specversion", "1.0")
    if not version.startswith("1."):
        return one_line(f"unknown-version: CloudEvents {version}")
    try:
        result = decode_result(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return one_line(f"not-a-result: {error}")
    if b"\\u" in value and not _storable(result):
        return "bad-text: contains NUL or an unpaired surrogate"
    if result.scheduled_at < now - keep_s:
        return f"too-old: scheduled at {result.scheduled_at:.3f}"
    if result.scheduled_at > now + FUTURE_LIMIT_S:
        return f"in-future: scheduled at {result.scheduled_at:.3f}"
    return result


def _storable(result: Result) -> bool:
    texts = "".join(value for value in row_of(result) if isinstance(value, str))
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in texts)
