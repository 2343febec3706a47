"""YAML, from text to nodes and from nodes to data, within bounds.

PyYAML is asked for events only. Its composer recurses, in C until the process crashes; its
constructor multiplies merged keys without a limit, and raises whatever a converter raises.

Numbers are as in YAML 1.2: ``1:30``, ``010`` and dates are text, not 90, 8 and a day.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import yaml

from monitor.errors import ConfigError
from monitor.yielding import in_slices

__all__ = [
    "BOOL_TAG",
    "FLOAT_TAG",
    "INT_TAG",
    "KEY_TAGS",
    "MERGE_TAG",
    "NULL_TAG",
    "TEXT_TAG",
    "compose",
    "construct",
    "decode",
    "plain_tag",
    "take_apart",
]

_MAX_DEPTH: Final = 50
# With each alias counted as all that it repeats.
_MAX_VALUES: Final = 1_000_000
_MAX_S: Final = 60.0
# Longer files are read by libyaml alone: PyYAML's own scanner takes 100 times as long.
_MAX_SLOW: Final = 64 * 1024
# libyaml compares each %TAG with all others.
_MAX_DIRECTIVES: Final = 100
# Python refuses to print integers of more than 4300 digits.
_MAX_NUMBER: Final = 400

_PREFIX: Final = "tag:yaml.org,2002:"
TEXT_TAG: Final = f"{_PREFIX}str"
NULL_TAG: Final = f"{_PREFIX}null"
MERGE_TAG: Final = f"{_PREFIX}merge"
INT_TAG: Final = f"{_PREFIX}int"
FLOAT_TAG: Final = f"{_PREFIX}float"
BOOL_TAG: Final = f"{_PREFIX}bool"
_SEQUENCE: Final = f"{_PREFIX}seq"
_MAPPING: Final = f"{_PREFIX}map"
KEY_TAGS: Final = (TEXT_TAG, MERGE_TAG)

# YAML 1.1's numbers (https://yaml.org/type/int.html, .../float.html) but those to the base of 60
# and those that begin with a 0 for octal.
_NUMBERS: Final = {
    INT_TAG: re.compile(r"[-+]?(?:0x[0-9a-fA-F][0-9a-fA-F_]*|0b[01][01_]*|0|[1-9][0-9_]*)\Z"),
    FLOAT_TAG: re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}
_HALF: Final = re.compile("[\ud800-\udfff]")
_BOOLEANS: Final = {
    "yes": True, "no": False, "true": True, "false": False, "on": True, "off": False
}  # fmt: skip


class _PlainLoader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]
        first: [each for each in resolvers if each[0] in (NULL_TAG, MERGE_TAG, BOOL_TAG)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _tag, _form in _NUMBERS.items():
    _PlainLoader.add_implicit_resolver(_tag, _form, list("-+.0123456789"))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers = _PlainLoader.yaml_implicit_resolvers


def decode(file: str, raw: bytes) -> str:
    """Return UTF-8 as text, with or without a byte order mark. Raises ConfigError."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError("not UTF-8 text", file=file, line=line) from None


def plain_tag(value: str) -> str:
    """Return the tag of a text without quotes."""
    return str(_Loader("").resolve(yaml.ScalarNode, value, (True, False)))


def compose(file: str, text: str) -> yaml.Node | None:
    """Return the root of the one document in ``text``, None for no document.

    Raises ConfigError with the line. The nodes' marks are those of PyYAML.
    """
    if text.count("\n%") > _MAX_DIRECTIVES:
        raise ConfigError(f"more than {_MAX_DIRECTIVES} directives", file=file)
    try:
        return _compose_leniently(file, text)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(file, text, error) from None
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - PyYAML's readers raise whatever they meet
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"not YAML: {problem}", file=file) from None


def _compose_leniently(file: str, text: str) -> yaml.Node | None:
    """Compose; accept also what libyaml refuses and PyYAML's own scanner reads.

    In brackets and braces PyYAML's scanner takes a plain ``a:``, for one.
    """
    try:
        return _Composer(file, text, _Loader).compose()
    except yaml.MarkedYAMLError as error:
        if len(text) > _MAX_SLOW or _hint(text, error) is not None:
            raise
        try:
            return _Composer(file, text, _PlainLoader).compose()
        except (yaml.YAMLError, ValueError, OverflowError):
            raise error from None


class _Composer:
    """Builds nodes from events without recursion, and counts."""

    def __init__(self, file: str, text: str, loader: Any) -> None:
        self._file = file
        self._loader = loader(text)
        self._until = time.monotonic() + _MAX_S
        # What an anchor names, with the number of values in it and its depth.
        self._anchors: dict[str, tuple[yaml.Node, int, int]] = {}
        self._open: list[_Open] = []
        self._root: yaml.Node | None = None

    def compose(self) -> yaml.Node | None:
        try:
            return self._compose()
        except BaseException:
            self._anchors.clear()
            for root in (self._root, *(each.node for each in self._open)):
                take_apart(root)
            raise

    def _compose(self) -> yaml.Node | None:
        documents = 0
        for number, event in enumerate(in_slices(self._events())):
            if not number % 1024 and time.monotonic() > self._until:
                raise self._refuse(f"not read within {_MAX_S:g} s", event)
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refuse("not YAML: more than one document", event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.ScalarEvent):
                if event.style == '"' and _HALF.search(event.value):
                    event.value = _joined(event.value)
                tag = event.tag
                if tag is None or tag == "!":
                    tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
                start: Any = event.start_mark
                node = yaml.ScalarNode(tag, event.value, start, None, style=event.style)
                if event.anchor is not None:
                    self._anchors[event.anchor] = (node, 1, 0)
                self._add(node, 1, 0)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
        return self._root

    def _events(self) -> Iterator[yaml.Event]:
        while self._loader.check_event():
            yield self._loader.get_event()

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) >= _MAX_DEPTH:
            raise self._refuse(f"nested deeper than {_MAX_DEPTH}", event)
        kind: Any = yaml.SequenceNode
        tag = _SEQUENCE
        if isinstance(event, yaml.MappingStartEvent):
            kind, tag = yaml.MappingNode, _MAPPING
        if event.tag not in (None, "!"):
            tag = event.tag
        node = kind(tag, [], event.start_mark, None, flow_style=event.flow_style)
        self._open.append(_Open(node, event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.node, done.values, done.depth)
        self._add(done.node, done.values, done.depth)

    def _alias(self, event: Any) -> None:
        named = self._anchors.get(event.anchor)
        if named is None:
            if any(each.anchor == event.anchor for each in self._open):
                raise self._refuse("not YAML: an alias that contains itself", event)
            raise self._refuse("not YAML: found undefined alias", event)
        node, values, depth = named
        if len(self._open) + depth > _MAX_DEPTH:
            raise self._refuse(f"nested deeper than {_MAX_DEPTH}", event)
        self._add(node, values, depth, event)

    def _add(
        self, node: yaml.Node, values: int, depth: int, event: yaml.Event | None = None
    ) -> None:
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        parent.values += values
        parent.depth = max(parent.depth, depth + 1)
        if parent.values > _MAX_VALUES:
            problem = f"more than {_MAX_VALUES} values, counting those that aliases repeat"
            raise self._refuse(problem, event or node)
        if isinstance(parent.node, yaml.SequenceNode):
            parent.node.value.append(node)
        elif parent.key is None:
            parent.key = node
        else:
            parent.node.value.append((parent.key, node))
            parent.key = None

    def _refuse(self, problem: str, where: Any) -> ConfigError:
        return ConfigError(problem, file=self._file, line=where.start_mark.line + 1)


class _Open:
    """A collection whose end has not come yet."""

    __slots__ = ("anchor", "depth", "key", "node", "values")

    def __init__(self, node: Any, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: yaml.Node | None = None
        self.values = 1
        self.depth = 1


def construct(file: str, root: yaml.Node | None, *, texts: bool = False) -> Any:
    """Return what the nodes mean, as plain Python objects. Raises ConfigError with the line.

    What aliases repeat is one object, at each of its places. With ``texts``, numbers and truth
    values are the texts that stand for them.
    """
    return None if root is None else _Constructor(file, texts=texts).data(root)


def take_apart(root: yaml.Node | None) -> None:
    """Free the nodes below ``root`` in slices; freed at once, a million would hold all threads."""
    waiting = [] if root is None else [root]
    for _ in in_slices(iter(lambda: bool(waiting), False)):
        node = waiting[-1]
        if isinstance(node, yaml.CollectionNode) and node.value:
            below = node.value.pop()
            waiting.extend(below if isinstance(below, tuple) else (below,))
        else:
            waiting.pop()


class _Constructor:
    def __init__(self, file: str, *, texts: bool) -> None:
        self._file = file
        self._text_tags = (*KEY_TAGS, *_NUMBERS, BOOL_TAG) if texts else KEY_TAGS
        self._made: dict[int, Any] = {}

    def data(self, node: Any) -> Any:
        """Return what a node means; recurses as deep as compose() lets nodes be."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        made = self._made.get(id(node))
        if made is None:
            if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
                made = [self.data(item) for item in node.value]
            elif isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
                made = self._mapping(node)
            else:
                raise self._refuse(f"the tag {_shown(node.tag)} is not supported here", node)
            self._made[id(node)] = made
        return made

    def _mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refuse("a key must be plain text", key)
            if key.tag == MERGE_TAG:
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                # The first of several wins, and the mapping's own keys over all of them.
                for source in reversed(sources):
                    if not isinstance(source, yaml.MappingNode):
                        raise self._refuse("<< needs a section, or a list of sections", source)
                    merged.update(self.data(source))
            else:
                own[self._scalar(key)] = self.data(value)
        return merged | own

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag, text = node.tag, node.value
        if tag in self._text_tags:
            return _copied(text)
        if tag == NULL_TAG:
            return None
        kind = tag.removeprefix(_PREFIX)
        if tag in _NUMBERS:
            form = _NUMBERS[tag]
            if len(text) > _MAX_NUMBER:
                raise self._refuse(f"a number of more than {_MAX_NUMBER} characters", node)
            # With a tag in front it may be any text.
            if not form.match(text):
                raise self._refuse(f"the value after !!{kind} is not of this type", node)
            return _number(text, kind)
        if kind == "bool":
            found = _BOOLEANS.get(text.lower())
            if found is None:
                raise self._refuse("the value after !!bool is neither true nor false", node)
            return found
        raise self._refuse(f"the tag {_shown(tag)} is not supported here", node)

    def _refuse(self, problem: str, node: yaml.Node) -> ConfigError:
        return ConfigError(problem, file=self._file, line=node.start_mark.line + 1)


def _copied(text: str) -> str:
    """Return a copy: a node's own text would keep the memory of the nodes around it."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")


def _number(text: str, kind: str) -> int | float:
    digits = text.replace("_", "").lower()
    if kind == "int":
        base = 16 if "0x" in digits else 2 if "0b" in digits else 10
        return int(digits, base)
    return float(digits.replace(".inf", "inf").replace(".nan", "nan"))


def _joined(text: str) -> str:
    """Join pairs of halves of characters, which are escapes of JSON."""
    halves = text.encode("utf-16-le", "surrogatepass")
    return halves.decode("utf-16-le", "surrogatepass")


def _shown(tag: str) -> str:
    short = tag.replace(_PREFIX, "!!")
    return short if len(short) <= 60 else f"{short[:60]}..."


def _not_yaml(file: str, text: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else None
    problem = _hint(text, error) or error.problem or error.context or "not YAML"
    return ConfigError(f"not YAML: {problem}", file=file, line=line)


def _hint(text: str, error: yaml.MarkedYAMLError) -> str | None:
    """Return what to do about a mistake that is known, in place of the scanner's words."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return None
    if text[mark.index : mark.index + 1] == "\t":
        return "indent with spaces, not tabs"
    if text[mark.index - 1 : mark.index + 1] == "${":
        return "within braces or brackets a ${NAME} needs quotes"
    if text[mark.index : mark.index + 2] == "::":
        return "within braces or brackets an address that begins with :: needs quotes"
    return None
