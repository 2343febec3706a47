"""What must be true for Gatus, as keys of a job; pure."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from monitor.probes.foreign_values import DAY_S, glob, seconds

__all__ = ["take_conditions"]

_CONDITION = re.compile(r"\s*(\S.*?)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*")
_COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_CODES = range(100, 1000)
_PLACEHOLDER = re.compile(r"(?:\w+\()?\[[A-Z_]+\]")
_ANY = re.compile(r"any\((.*)\)")
_PATTERN = re.compile(r"pat\((.*)\)")
_OF_BODY = re.compile(r"(?:(len|has)\()?\[BODY\]([^()]*)\)?")
_STEP = re.compile(r"[.]?([^.\[\]]+)|\[(\d+)\]")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def take_conditions(conditions: list[str], job: dict[str, Any], lost: list[str]) -> None:
    """Add what must be true to the job's keys, and to ``lost`` what no key means."""
    codes = set(_CODES)
    for condition in conditions:
        found = _CONDITION.fullmatch(condition)
        what, sign, value = ("", "", "") if found is None else found.groups()
        if _PLACEHOLDER.match(value) and not _PLACEHOLDER.match(what):
            what, sign, value = value, _MIRRORED.get(sign, sign), what
        allowed = None
        if what == "[STATUS]" and job["kind"] == "http":
            allowed = _allowed_codes(sign, value)
        if allowed is not None:
            codes &= allowed
        elif what == "[RESPONSE_TIME]" and _take_time(sign, value, job):
            lost.append(f"the condition {condition}: a slower answer is degraded, not down")
        elif not _take(what, sign, value, job):
            lost.append(f"the condition {condition}")
    if conditions and job["kind"] == "http":
        # Without a condition for it, any status will do there.
        job["expected_status"] = _ranges(codes)


def _choices(value: str) -> list[str]:
    several = _ANY.fullmatch(value)
    return [each.strip() for each in several[1].split(",")] if several else [value]


def _expression_of(choice: str) -> str:
    pattern = _PATTERN.fullmatch(choice)
    return re.escape(choice) if pattern is None else glob(pattern[1])


def _allowed_codes(sign: str, value: str) -> set[int] | None:
    choices = _choices(value)
    if sign in ("==", "!="):
        texts = [_expression_of(choice) for choice in choices]
        same = {code for code in _CODES if any(re.fullmatch(each, str(code)) for each in texts)}
        numeric = all(_PATTERN.fullmatch(each) or each.isdecimal() for each in choices)
        return (same if sign == "==" else set(_CODES) - same) if numeric else None
    if not (value.isascii() and value.isdecimal()):
        return None
    return {code for code in _CODES if _COMPARISONS[sign](code, int(value))}


def _ranges(codes: Iterable[int]) -> list[str]:
    found: list[list[int]] = []
    for code in sorted(codes):
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return [f"{low}-{high}" if low < high else f"{low}" for low, high in found]


def _take_time(sign: str, value: str, job: dict[str, Any]) -> bool:
    try:
        most_s = int(value) / 1000 if value.isdecimal() else seconds(value)
    except ValueError:
        return False
    if sign not in ("<", "<=") or not most_s:
        return False
    job["degraded_after"] = min(most_s, job.get("degraded_after", most_s))
    return True


def _take(what: str, sign: str, value: str, job: dict[str, Any]) -> bool:
    """Add a condition to the job's keys; return whether that is possible."""
    kind = job["kind"]
    if (what, sign, value) == ("[CONNECTED]", "==", "true"):
        return True
    if what == "[CERTIFICATE_EXPIRATION]" and sign in (">", ">="):
        return _take_days(value, job)
    if what == "[DNS_RCODE]" and sign == "==" and kind == "dns":
        job["expected_rcode"] = value
        return True
    if what == "[BODY]" and not any(map(_PLACEHOLDER.match, _choices(value))):
        return _take_record(sign, value, job) if kind == "dns" else _take_body(sign, value, job)
    expression = _expression(what, sign, value) if kind == "http" else None
    if expression is not None:
        job["json"] = f"{job['json']} && {expression}" if "json" in job else expression
    return expression is not None


def _take_days(value: str, job: dict[str, Any]) -> bool:
    try:
        days = seconds(value) / DAY_S
    except ValueError:
        return False
    if days:
        job["certificate_days"] = days
    # Without a day to go it must be valid, as it must be here.
    return bool(days) or job.get("verify_tls", True)


def _take_record(sign: str, value: str, job: dict[str, Any]) -> bool:
    kind = str(job["url"]).rpartition("=")[2].upper()
    if sign != "==" or kind == "SRV":
        return False
    several = "|".join(map(_expression_of, _choices(value)))
    # There it is the name alone.
    before = r"^\d+ " if kind == "MX" else "^"
    several = f"(?:{several})" if _ANY.fullmatch(value) else several
    job.setdefault("expected", []).append(f"{before}{several}$")
    return True


def _take_body(sign: str, value: str, job: dict[str, Any]) -> bool:
    kind, choices = job["kind"], _choices(value)
    pattern = _PATTERN.fullmatch(value)
    within = re.fullmatch(r"[*]([^*]+)[*]", pattern[1]) if pattern else None
    whole = "|".join(map(_expression_of, choices))
    if within:
        expression = re.escape(within[1])
    elif kind == "http":
        expression = rf"(?s)\A\s*(?:{whole})\s*\Z"
    else:
        expression = rf"^\s*(?:{whole})\s*$"
    if sign == "==" and (kind == "websocket" or "dialogue" in job):
        job.setdefault("dialogue", []).append({"expect": expression})
        return True
    key = {"==": "body_regexp", "!=": "body_absent_regexp"}.get(sign)
    kinds = ("http", "tcp") if sign == "==" else ("http",)
    if key is None or kind not in kinds or key in job:
        return False
    job[key] = expression
    return True


def _literal(value: Any) -> str:
    return f"`{json.dumps(value).replace('`', chr(92) + '`')}`"


def _path(text: str) -> str | None:
    """Return a path in the body's JSON in JMESPath, or None."""
    found, place = "", 0
    while place < len(text):
        step = _STEP.match(text, place)
        if step is None:
            return None
        place = step.end()
        name, index = step[1], step[2]
        if name is None:
            found += f"[{index}]"
        else:
            name = name if _IDENTIFIER.fullmatch(name) else json.dumps(name)
            found += f".{name}" if found else name
    return found or "@"


def _expression(what: str, sign: str, value: str) -> str | None:
    """Return a condition about the body's JSON in JMESPath, or None."""
    found = _OF_BODY.fullmatch(what)
    path = None if found is None else _path(found[2])
    if found is None or path is None:
        return None
    if found[1] == "has":
        if (sign, value) not in (("==", "true"), ("==", "false")):
            return None
        return f"{path} {'!=' if value == 'true' else '=='} `null`"
    if found[1] == "len":
        return f"length({path}) {sign} `{value}`" if _NUMBER.fullmatch(value) else None
    if sign in ("==", "!="):
        return _equal(path, sign, value)
    return f"to_number({path}) {sign} `{value}`" if _NUMBER.fullmatch(value) else None


def _equal(path: str, sign: str, value: str) -> str | None:
    choices = _choices(value)
    known = [_comparison(path, sign, choice) for choice in choices]
    if None in known or (sign == "!=" and len(known) > 1):
        return None
    several = " || ".join(filter(None, known))
    return f"({several})" if len(known) > 1 else several


def _comparison(path: str, sign: str, value: str) -> str | None:
    """Return that the value at a path is, or is not, this one; there all are compared as text."""
    if _PLACEHOLDER.match(value):
        other = _OF_BODY.fullmatch(value)
        where = None if other is None or other[1] else _path(other[2])
        return None if where is None else f"to_string({path}) {sign} to_string({where})"
    pattern = _PATTERN.fullmatch(value)
    if pattern is not None:
        return _alike(f"to_string({path})", sign, pattern[1])
    if value in ("true", "false") or _NUMBER.fullmatch(value):
        return f"to_string({path}) {sign} {_literal(value)}"
    return f"{path} {sign} {_literal(None if value == 'null' else value)}"


def _alike(text: str, sign: str, pattern: str) -> str | None:
    """Return that a text is, or is not, like a pattern with stars at its ends."""
    inner = _literal(pattern.strip("*"))
    functions = {"*x": "ends_with", "x*": "starts_with", "*x*": "contains"}
    form = "*" * pattern.startswith("*") + "x" + "*" * pattern.endswith("*")
    if "*" in pattern.strip("*") or not pattern.strip("*") or form not in functions:
        return None
    return f"{'!' * (sign == '!=')}{functions[form]}({text}, {inner})"
