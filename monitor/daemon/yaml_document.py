"""A YAML file whose values have line numbers.

``${NAME}`` in a value is replaced by the environment variable; ``$${NAME}`` becomes ``${NAME}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import yaml

from monitor.errors import ConfigError, SettingError, SettingPath, key_text
from monitor.files.reading import read_file
from monitor.files.yaml_nodes import (
    KEY_TAGS,
    NULL_TAG,
    TEXT_TAG,
    compose,
    construct,
    decode,
    plain_tag,
    take_apart,
)

__all__ = ["Document"]

_MAX_FILE_BYTES = 16 * 1024 * 1024
_HALF = re.compile("[\ud800-\udfff]")
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")
# A shorter value is hardly a secret, and could match part of a word in an error.
_LEAST_SECRET = 4


class Document:
    """The nodes of a YAML file: :meth:`data` returns their values, :meth:`line` their lines."""

    def __init__(self, file: str, root: yaml.Node | None, *, empty: bool = False) -> None:
        self.file = file
        # Whether the file is empty, without even a comment.
        self.empty = empty
        self._root = root
        # Scalars with the value of a variable, which may be more than text, and their kinds.
        self._substituted: dict[int, tuple[yaml.ScalarNode, SettingPath]] = {}
        # Their source, with the names of the variables.
        self._written: dict[int, str] = {}
        self._data: dict[str, Any] | None = None

    @classmethod
    def read(cls, file: str) -> Document:
        """Read ``file``, a mapping or empty; raises ConfigError."""
        if not file:
            raise ConfigError("the name of the config file is empty", file=file)
        try:
            raw = read_file(file, max_bytes=_MAX_FILE_BYTES, own=True)
        except OSError as error:
            raise ConfigError(f"cannot read the file: {error.strerror}", file=file) from None
        text = decode(file, raw)
        root = compose(file, text)
        if isinstance(root, yaml.ScalarNode) and root.tag == NULL_TAG:
            root = None
        if root is not None and not isinstance(root, yaml.MappingNode):
            raise ConfigError("expected keys and values at the top level", file=file, line=1)
        return cls(file, root, empty=not text.strip())

    def substitute(self, environ: Mapping[str, str]) -> Iterator[SettingError]:
        """Substitute environment variables; yield errors, including those of keys and letters."""
        for path, node in self._nodes():
            if isinstance(node, yaml.MappingNode):
                yield from _key_errors(path, node)
            if not isinstance(node, yaml.ScalarNode):
                continue
            if "\0" in node.value:
                # No file, host or database accepts it, and each has another error for it.
                yield SettingError(path, "must not contain NUL")
            if _HALF.search(node.value):
                # Neither does any of these accept text that has no UTF-8.
                yield SettingError(path, "is not valid Unicode: half of a surrogate pair")
            if "${" not in node.value:
                continue
            unset = [
                name
                for escaped, name in _VARIABLE.findall(node.value)
                if not escaped and name not in environ
            ]
            if unset:
                yield SettingError(path, f"environment variable {unset[0]} is not set")
                continue
            self._written[id(node)] = node.value
            node.value = _VARIABLE.sub(
                lambda match: match[0][1:] if match[1] else environ[match[2]], node.value
            )
            node.tag = TEXT_TAG
            self._substituted[id(node)] = (node, _kind(path))

    def as_written(self, error: SettingError) -> SettingError:
        """Return the same error with names in place of the values of environment variables.

        These may be secrets in the wrong place.
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

    def reinterpret(self, path: SettingPath, *, alike: bool) -> bool:
        """Interpret a substituted scalar as if it were unquoted; False if it is text.

        With ``alike``, others are, too, that are the same key of another item of a list: each
        further look at a long list takes long.
        """
        node = self._at(path)[1]
        if id(node) not in self._substituted:
            return False
        found, kind = self._substituted.pop(id(node))
        found.tag = plain_tag(found.value)
        if found.tag == TEXT_TAG:
            return False
        for other, its in list(self._substituted.values()) if alike else ():
            if its == kind:
                other.tag = plain_tag(other.value)
                del self._substituted[id(other)]
        self._data = None
        return True

    @property
    def root(self) -> yaml.Node | None:
        """The mapping at the top, None for an empty file."""
        return self._root

    def placed(self, error: SettingError, node: yaml.Node | None = None) -> ConfigError:
        """Return an error of a setting with its file and line, which is ``node``'s if given."""
        line = self.line(error.path) if node is None else node.start_mark.line + 1
        key = key_text(error.path)
        return ConfigError(error.problem, file=self.file, line=line, key=key)

    def data(self) -> dict[str, Any]:
        """Return the values as Python objects, not to be changed; raises ConfigError.

        It is the same object until a value is interpreted again.
        """
        if self._data is None:
            self._data = cast("dict[str, Any]", construct(self.file, self._root) or {})
        return self._data

    def take_apart(self) -> None:
        """Free the nodes, in slices; it has no values and no lines any more."""
        root, self._root = self._root, None
        self._written = {}
        self._substituted = {}
        self._data = None
        take_apart(root)

    def line(self, path: SettingPath) -> int | None:
        """Return the line (from 1) of the deepest part of ``path`` that is in the file."""
        return self._at(path)[0]

    def _at(self, path: SettingPath) -> tuple[int | None, yaml.Node | None]:
        """Return the line of the deepest part of ``path``, and the node if all of it exists."""
        node = self._root
        if node is None:
            return None, None
        line = node.start_mark.line + 1 if path == () else None
        for step in path:
            found = None
            if isinstance(node, yaml.MappingNode):
                # The last one, so that a duplicate key is shown at its second line.
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
        """Yield every node once, with a path to it, even if aliases repeat it."""
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


def _kind(path: SettingPath) -> SettingPath:
    """Return what the paths of the same key have in common, whichever items of lists they are in.

    The two items of an address are not the same.
    """
    *around, last = path or ("",)
    steps = [step for step in around if step.__class__ is not int]
    return (*steps, min(last, 2) if isinstance(last, int) else last)


def _key_errors(path: SettingPath, node: yaml.MappingNode) -> Iterator[SettingError]:
    keys = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            yield SettingError(path, "keys must be strings")
            continue
        if key.tag not in KEY_TAGS:
            yield SettingError((*path, key.value), f"keys must be strings: quote {key.value}")
        if key.value in keys and key.value != "<<":
            yield SettingError((*path, key.value), "duplicate key")
        keys.add(key.value)
