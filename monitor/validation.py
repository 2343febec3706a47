"""What msgspec finds wrong with data from outside, in the words of whoever sent it.

Its own speak of Python: ``Expected `int | null`, got `str` - at `$.limit` ``. Here that is
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
# The last such end, since the data may have one, too.
_AT: Final = re.compile(r"(.*) - at `(?:key` in `)?\$([^`]*)`", re.DOTALL)
_MOST_SHOWN: Final = 100


def decoding_problem(error: Exception, kind: type[msgspec.Struct] | None = None) -> str:
    """Say what is wrong, with the place in front: ``jobs[2].interval: expected a number``.

    ``error`` is one of msgspec's, or a UnicodeDecodeError or RecursionError that decoding may end
    with. ``kind`` is what was to be decoded, where its fields may be named. Nothing of the data is
    repeated but names of fields.
    """
    place, problem = place_and_problem(error, kind)
    return f"{place}: {problem}" if place else problem


def place_and_problem(
    error: Exception, kind: type[msgspec.Struct] | None = None
) -> tuple[str, str]:
    """Return the same as two: ``jobs[2].interval`` (empty for the whole) and what is wrong."""
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
    """Return msgspec's ``Expected `int` >= 1, got `str` `` in plain words.

    ``words`` are those for types (``object``, ``array``, ...) that go by other names where the
    data comes from. None for a problem of another kind.
    """
    found = _EXPECTED.fullmatch(problem)
    return None if found is None else _expected(found, {**_KINDS, **words})


def did_you_mean(name: str, known: list[str]) -> str:
    """Return what may have been meant by a name that is none of ``known``, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here are {', '.join(known)}"


def unknown_key(name: str, known: list[str]) -> str:
    """Say that a key is none of ``known``; it may be anything that a peer has sent."""
    name = printable(name)
    return f"unknown key {name}; {did_you_mean(name, known)}"


def unknown_tagged_key(name: str, field: str, tag: str, keys: Mapping[str, Sequence[str]]) -> str:
    """Say that what ``field`` calls ``tag`` does not know a key; ``keys`` are those of each tag."""
    others = sorted(other for other, known in keys.items() if name in known)
    if others:
        return f"unknown key for {field} {tag}; known by {', '.join(others)}"
    return f"unknown key; {did_you_mean(name, list(keys[tag]))}"


def printable(name: str) -> str:
    """Return a key that may be anything, so that a line can show it."""
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
        return f"expected one of {', '.join(allowed)}" if allowed else "none of the values allowed"
    if expected := expectation(problem, {}):
        return expected
    if "surrogate" in problem or problem == "Input data was truncated":
        # For an escape of half a character, and for a text that just ends.
        return "the JSON ends too early, or an escape is half of a surrogate pair"
    problem = problem.replace("JSON is malformed: ", "not JSON: ").replace("`", "")
    return problem[:1].lower() + problem[1:]


def _expected(expected: re.Match[str], words: Mapping[str, str]) -> str:
    kinds, relation, bound, rest = expected.groups(default="")
    # That it may be null is no hint to who wrote something else.
    names = [words.get(name, name) for name in kinds.split(" | ") if name != "null"] or ["null"]
    said = f"expected {' or '.join(dict.fromkeys(names))}"
    if bound:
        amount = f"{_BOUNDS[relation]} " if relation else ""
        amount += bound.removesuffix(".0")
        unit = {"str": "characters", "array": "items"}.get(kinds.removesuffix(" | null"))
        said += f" of {amount} {unit}" if unit else f", {amount}"
    found = re.fullmatch(r", got `(.*)`", rest)
    if found:
        return f"{said}, not {words.get(found[1], found[1])}"
    return said + rest.replace("`", "")


def _values(kind: type[msgspec.Struct], name: str) -> Iterator[str]:
    """Yield the values of a field that takes a few fixed ones."""
    for field in msgspec.structs.fields(kind):
        if field.encode_name == name:
            found = msgspec.inspect.type_info(field.type)
            for each in getattr(found, "types", (found,)):
                if isinstance(each, msgspec.inspect.LiteralType):
                    yield from map(str, each.values)
