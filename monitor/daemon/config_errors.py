"""Why a config does not fit its type, in the terms of the YAML file."""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec

from monitor.errors import SettingError
from monitor.settings import Section
from monitor.validation import did_you_mean, expectation, unknown_tagged_key

__all__ = ["is_address", "setting_error"]


def setting_error(text: str, data: Any, root: type[Section]) -> SettingError:
    """Return path and problem of an error of msgspec: ``... - at `$.a.b[2]` ``.

    ``data`` is what was to be converted to ``root``.
    """
    problem, _, place = text.partition(" - at `")
    path: list[str | int] = []
    for name, index, anything in re.findall(r"\.([^.\[`]+)|\[(\d+)\]|(\[\.\.\.\])", place):
        if anything:
            break
        path.append(int(index) if index else name)
    unknown = re.search(r"unknown field `(.*)`", problem, re.DOTALL)
    if unknown:
        return SettingError((*path, unknown[1]), _unknown_key(unknown[1], path, data, root))
    missing = re.search(r"missing required field `(.*)`", problem)
    if missing:
        return SettingError(tuple(path), f"the key {missing[1]} is missing")
    value = _value_at(data, path)
    if problem.startswith("Invalid value") and path:
        # A tag, which selects one of several kinds of sections.
        tags = [str(option.tag) for option in _sections_at(root, path[:-1])]
        problem = f"unknown {path[-1]} {value!r}; {did_you_mean(str(value), tags)}"
        return SettingError(tuple(path), problem)
    if problem.startswith("Invalid enum value"):
        allowed = _allowed_values(root, path)
        if allowed:
            return SettingError(tuple(path), f"expected one of {', '.join(allowed)}, not {value!r}")
    shown = f", not {value!r}" if isinstance(value, (int, float)) or value is None else ""
    problem = _in_plain_words(problem, path, value, root)
    if problem == "expected a whole number, not a number":
        problem = "expected a whole number"
    if " not " in problem:
        shown = ""
    return SettingError(tuple(path), problem + shown)


# As YAML's users call what msgspec calls an object.
_YAML_WORDS = {"object": "a section of keys"}
_WITH_UNIT = re.compile(
    r"[\d.]+ ?(?:[kKMGT]i?B?|B|m?s|m|h|d|secs?|min|(?:second|minute|hour|day)s?)"
)


def _in_plain_words(problem: str, path: list[str | int], value: Any, root: type[Section]) -> str:
    words = _YAML_WORDS
    if is_address(root, path):
        if "of length" in problem:
            return 'expected ["HOST", PORT]'
        words = {**words, "array": '["HOST", PORT]'}
    said = expectation(problem, words)
    if said is None:
        return problem.replace("`", "")
    if isinstance(value, str) and "number" in said and _WITH_UNIT.fullmatch(value):
        return "expected a number without a unit; times are in seconds, sizes in bytes"
    return said


def is_address(root: type[Section], path: list[str | int]) -> bool:
    """Return whether ``root`` has an address at ``path``."""
    return any(
        isinstance(option, msgspec.inspect.TupleType) and len(option.item_types) == 2
        for option in _types_at(root, path)
    )


def _value_at(data: Any, path: list[str | int]) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return ...
    return data


def _unknown_key(key: str, path: list[str | int], data: Any, root: type[Section]) -> str:
    """Return the error for an unknown ``key`` in the section at ``path``."""
    sections = _sections_at(root, path)
    tag_field = sections[0].tag_field if sections else None
    if tag_field is None:
        known = [field.encode_name for section in sections for field in section.fields]
        return f"unknown key; {did_you_mean(key, known)}"
    keys = {
        str(section.tag): [tag_field, *(field.encode_name for field in section.fields)]
        for section in sections
    }
    return unknown_tagged_key(key, tag_field, _value_at(data, path)[tag_field], keys)


def _sections_at(root: type[Section], path: list[str | int]) -> list[msgspec.inspect.StructType]:
    """Return the possible types of the section at ``path``."""
    return [
        option for option in _types_at(root, path) if isinstance(option, msgspec.inspect.StructType)
    ]


def _allowed_values(root: type[Section], path: list[str | int]) -> list[str]:
    """Return the allowed values at ``path`` if they are fixed."""
    allowed: list[str] = []
    for option in _types_at(root, path):
        if isinstance(option, msgspec.inspect.LiteralType):
            allowed += [str(value) for value in option.values]
        elif isinstance(option, msgspec.inspect.EnumType):
            allowed += [str(member.value) for member in option.cls]
    return list(dict.fromkeys(allowed))


def _types_at(root: type[Section], path: list[str | int]) -> tuple[msgspec.inspect.Type, ...]:
    """Return the possible types of the value at ``path``."""
    kind = _type_info(root)
    for step in path:
        for option in _options(kind):
            if isinstance(option, msgspec.inspect.StructType) and isinstance(step, str):
                found = [field.type for field in option.fields if field.encode_name == step]
                if found:
                    kind = found[0]
                    break
            if isinstance(step, int):
                item = getattr(option, "item_type", None)
                if item is not None:
                    kind = item
                    break
        else:
            return ()
    return _options(kind)


@functools.cache
def _type_info(root: type[Section]) -> msgspec.inspect.Type:
    return msgspec.inspect.type_info(root)


def _options(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    """Return the types of a union, or the type itself, without bounds."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _options(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return tuple(option for one in kind.types for option in _options(one))
    return (kind,)
