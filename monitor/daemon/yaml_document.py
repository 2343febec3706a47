"""A YAML file whose values know where they stand.

``${NAME}`` in a value is taken from the environment; ``$${NAME}`` is left as ``${NAME}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import yaml

from monitor.errors import ConfigError, SettingError, SettingPath
from monitor.files.reading import read_file
from monitor.files.yaml_nodes import (
    KEY_TAGS,
    NULL_TAG,
    TEXT_TAG,
    compose,
    construct,
    decode,
    plain_tag,
)

__all__ = ["Document"]

_MAX_FILE_BYTES = 16 * 1024 * 1024
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")
# No secret is shorter, and of what is, the words of an error might have a part.
_LEAST_SECRET = 4


class Document:
    """The nodes of a YAML file; :meth:`data` gives what they mean, :meth:`line` where they are."""

    def __init__(self, file: str, root: yaml.Node | None, *, empty: bool = False) -> None:
        self.file = file
        # Whether there is nothing in the file, not even a comment.
        self.empty = empty
        self._root = root
        # Scalars with a variable's value in them, which may mean more than text.
        self._substituted: set[int] = set()
        # How those are written, the variables by their names.
        self._written: dict[int, str] = {}

    @classmethod
    def read(cls, file: str) -> Document:
        """Read ``file``: a mapping, or nothing. Raises ConfigError."""
        if not file:
            raise ConfigError("the name of the config file is empty", file=file)
        try:
            raw = read_file(file, max_bytes=_MAX_FILE_BYTES, own=True)
        except OSError as error:
            raise ConfigError(f"cannot read it: {error.strerror}", file=file) from None
        text = decode(file, raw)
        root = compose(file, text)
        if isinstance(root, yaml.ScalarNode) and root.tag == NULL_TAG:
            root = None
        if root is not None and not isinstance(root, yaml.MappingNode):
            raise ConfigError("expected keys and values at the top", file=file, line=1)
        return cls(file, root, empty=not text.strip())

    def substitute(self, environ: Mapping[str, str]) -> None:
        """Put the environment's values into scalars; refuse keys that stand twice, and NUL.

        Raises SettingError.
        """
        for path, node in self._nodes():
            if isinstance(node, yaml.MappingNode):
                _refuse_doubles(path, node)
            if not isinstance(node, yaml.ScalarNode):
                continue
            if "\0" in node.value:
                # No file, host or database takes it, and each would say so in its own way.
                raise SettingError(path, "must not contain NUL")
            if "${" not in node.value:
                continue

            def value(match: re.Match[str], path: SettingPath = path) -> str:
                escaped, name = match.groups()
                if escaped:
                    return match[0][1:]
                try:
                    return environ[name]
                except KeyError:
                    problem = f"the environment has no variable {name}"
                    raise SettingError(path, problem) from None

            self._written[id(node)] = node.value
            node.value = _VARIABLE.sub(value, node.value)
            node.tag = TEXT_TAG
            self._substituted.add(id(node))

    def as_written(self, error: SettingError) -> SettingError:
        """Return the same error with the name of a variable for what the environment has for it.

        Secrets come from there, and may be in the wrong place.
        """
        node = self._at(error.path)[1]
        written = self._written.get(id(node))
        if written is None or not isinstance(node, yaml.ScalarNode):
            return error
        problem = error.problem
        for value in {node.value, repr(node.value)[1:-1]}:
            if len(value) >= _LEAST_SECRET:
                problem = problem.replace(value, written)
        return SettingError(error.path, problem, whole=error.whole)

    def reinterpret(self, path: SettingPath) -> bool:
        """Let a substituted scalar mean what it would mean unquoted; False where that is text."""
        node = self._at(path)[1]
        if not isinstance(node, yaml.ScalarNode) or id(node) not in self._substituted:
            return False
        self._substituted.discard(id(node))
        node.tag = plain_tag(node.value)
        return bool(node.tag != TEXT_TAG)

    def data(self) -> dict[str, Any]:
        """Return the values as plain Python objects. Raises ConfigError."""
        return cast("dict[str, Any]", construct(self.file, self._root) or {})

    def line(self, path: SettingPath) -> int | None:
        """Return the line (from 1) of the deepest part of ``path`` that stands in the file."""
        return self._at(path)[0]

    def _at(self, path: SettingPath) -> tuple[int | None, yaml.Node | None]:
        """Return the line of the deepest part of ``path``, and its node if it is all there."""
        node = self._root
        if node is None:
            return None, None
        line = node.start_mark.line + 1 if path == () else None
        for step in path:
            found = None
            if isinstance(node, yaml.MappingNode):
                # The last one, so that a key that stands twice is shown at its repetition.
                pairs = [pair for pair in node.value if str(pair[0].value) == step]
                if pairs:
                    line, found = pairs[-1][0].start_mark.line + 1, pairs[-1][1]
            elif isinstance(node, yaml.SequenceNode) and step in range(len(node.value)):
                found = node.value[cast("int", step)]
                line = found.start_mark.line + 1
            if found is None:
                return line, None
            node = found
        return line, node

    def _nodes(self) -> Iterator[tuple[SettingPath, yaml.Node]]:
        """Yield every node once, however often aliases repeat it, with a path that leads to it."""
        if self._root is None:
            return
        seen: set[int] = set()
        waiting: list[tuple[SettingPath, yaml.Node]] = [((), self._root)]
        while waiting:
            path, node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield path, node
            if isinstance(node, yaml.MappingNode):
                waiting.extend(((*path, str(key.value)), value) for key, value in node.value)
            elif isinstance(node, yaml.SequenceNode):
                waiting.extend(((*path, index), item) for index, item in enumerate(node.value))


def _refuse_doubles(path: SettingPath, node: yaml.MappingNode) -> None:
    keys = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise SettingError(path, "a key must be plain text")
        if key.tag not in KEY_TAGS:
            problem = f"a key must be text; {key.value} is none unless it stands in quotes"
            raise SettingError((*path, key.value), problem)
        if key.value in keys and key.value != "<<":
            raise SettingError((*path, key.value), "stands here twice")
        keys.add(key.value)
