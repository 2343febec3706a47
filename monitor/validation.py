"""Turns msgspec's errors into plain words.

From ``Expected `int | null`, got `str` - at `$.limit` `` it makes
``limit: expected a whole number, not a text``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

__all__ = [
    "decoding_problem",
    "did_you_mean",
    "expectation",
    "one_line",
    "place_and_problem",
    "printable",
    "unknown_key",
    "unknown_tagged_key",
]

_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_EXPECTED: Final = re.compile(
    r"Expected `([^`]*)`(?: of length)?(?: (>=|<=|>|<))?(?: ([-+]?\d[-+.\de]*))?(.*)"
)
# The last one, because the data may contain the same text.
_AT: Final = re.compile(r"(.*) - at `(?:key` in `)?\$([^`]*)`", re.DOTALL)
_MOST_SHOWN: Final = 100
_LONGEST_LINE: Final = 500


def decoding_problem(error: Exception, kind: type[msgspec.Struct] | None = None) -> str:
    """Return the problem with its place: ``jobs[2].interval: expected a number``.

    ``error`` is an error of msgspec, or a UnicodeDecodeError or RecursionError of the decoder.
    ``kind`` is the decoded type, if its fields may be named. The result has nothing of the data
    except names of fields.
    """
    place, problem = place_and_problem(error, kind)
    return f"{place}: {problem}" if place else problem


def place_and_problem(
    error: Exception, kind: type[msgspec.Struct] | None = None
) -> tuple[str, str]:
    """Return place and problem separately; the place is empty for the whole data."""
    if isinstance(error, UnicodeDecodeError):
        return "", "a string is not valid UTF-8"
    if isinstance(error, RecursionError):
        return "", "the JSON is nested too deeply"
    found = _AT.fullmatch(str(error))
    if found is None:
        return "", _plain(str(error), "", kind)
    place = printable(found[2].removeprefix("."))
    return place, _plain(found[1], place, kind)


def expectation(problem: str, words: Mapping[str, str]) -> str | None:
    """Return ``Expected `int` >= 1, got `str` `` in plain words; None for another problem.

    ``words`` are names for types (``object``, ``array``, ...) that differ from the default.
    """
    found = _EXPECTED.fullmatch(problem)
    return None if found is None else _expected(found, {**_KINDS, **words})


def did_you_mean(name: str, known: list[str]) -> str:
    """Return a hint for an unknown name: the nearest of ``known``, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"


def unknown_key(name: str, known: list[str]) -> str:
    """Return the error for an unknown key, which may be any text from a peer."""
    name = printable(name)
    return f"unknown key {name}; {did_you_mean(name, known)}"


def unknown_tagged_key(name: str, field: str, tag: str, keys: Mapping[str, Sequence[str]]) -> str:
    """Return the error for a key that the kind ``tag`` lacks; ``keys`` are those of each tag."""
    others = sorted(other for other, known in keys.items() if name in known)
    if others:
        return f"unknown key for {field} {tag}; known by {', '.join(others)}"
    return f"unknown key; {did_you_mean(name, list(keys[tag]))}"


def one_line(text: str) -> str:
    """Return at most 500 characters of a text from outside, with ``?`` for unprintable ones."""
    return "".join(c if c.isprintable() else "?" for c in text[:_LONGEST_LINE])


def printable(name: str) -> str:
    """Return an untrusted key, shortened and escaped for a line."""
    name = name[:_MOST_SHOWN]
    return name if name.isprintable() else ascii(name)


def _plain(problem: str, place: str, kind: type[msgspec.Struct] | None) -> str:
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        if kind is None or place:
            return f"unknown key {printable(unknown[1])}"
        return unknown_key(
            unknown[1], [field.encode_name for field in msgspec.structs.fields(kind)]
        )
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"the key {missing[1]} is missing"
    if problem.startswith("Invalid enum value"):
        allowed = [] if kind is None else list(dict.fromkeys(_values(kind, place)))
        return f"expected one of {', '.join(allowed)}" if allowed else "not an allowed value"
    if expected := expectation(problem, {}):
        return expected
    if "surrogate" in problem or problem == "Input data was truncated":
        # msgspec has the same error for half of a surrogate pair and for a truncated text.
        return "the JSON ends too early, or an escape is half of a surrogate pair"
    problem = problem.replace("JSON is malformed: ", "not JSON: ").replace("`", "")
    return problem[:1].lower() + problem[1:]


def _expected(expected: re.Match[str], words: Mapping[str, str]) -> str:
    kinds, relation, bound, rest = expected.groups(default="")
    # Do not offer null as an alternative.
    names = [words.get(name, name) for name in kinds.split(" | ") if name != "null"] or ["null"]
    said = f"expected {' or '.join(dict.fromkeys(names))}"
    if bound:
        amount = f"{_BOUNDS[relation]} " if relation else ""
        amount += bound.removesuffix(".0")
        unit = {"str": "characters", "array": "items"}.get(kinds.removesuffix(" | null"))
        if unit and bound == "1":
            unit = unit.removesuffix("s")
        said += f" of {amount} {unit}" if unit else f", {amount}"
    found = re.fullmatch(r", got `(.*)`", rest)
    if found:
        return f"{said}, not {words.get(found[1], found[1])}"
    return said + rest.replace("`", "")


def _values(kind: type[msgspec.Struct], name: str) -> Iterator[str]:
    """Yield the allowed values of a field with fixed values."""
    for field in msgspec.structs.fields(kind):
        if field.encode_name == name:
            found = msgspec.inspect.type_info(field.type)
            for each in getattr(found, "types", (found,)):
                if isinstance(each, msgspec.inspect.LiteralType):
                    yield from map(str, each.values)
