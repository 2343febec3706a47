"""The keys of ReCodEx monitor 1.x, read as 1.x read them.

A file that 1.x ran must start this daemon with the same effect. 1.x ignored unknown keys at the
top and in ``logger``, and took a default for a value that it could not use. So do we, with a
warning for each place. Everything in a section that 1.x did not have is checked strictly.
"""

from __future__ import annotations

import difflib
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

from monitor.daemon.logfile import LEVELS, LoggerSettings
from monitor.daemon.yaml_document import Document
from monitor.errors import ConfigError, SettingError, SettingPath
from monitor.files.yaml_nodes import (
    BOOL_TAG,
    FLOAT_TAG,
    INT_TAG,
    KEY_TAGS,
    MERGE_TAG,
    NULL_TAG,
    TEXT_TAG,
)
from monitor.validation import did_you_mean

__all__ = ["OldKeys"]

_WEBSOCKET, _ZEROMQ, _LOGGER = "websocket_uri", "zeromq_uri", "logger"
_OWN = (_WEBSOCKET, _ZEROMQ, _LOGGER)
_LOGGER_KEYS = ("file", "level", "max-size", "rotations")
# The names that are so alike are taken for a typing error in a key of ours.
_NEARLY = 0.75
_MOST = {"max-size": 2**40, "rotations": 1000}
# As C's atoi() reads it.
_NUMBER = re.compile(r"\s*([-+]?[0-9]{1,10})", re.ASCII)
_MOST_SHOWN = 60
_MOST_REMARKS = 20


class OldKeys:
    """Takes a document's old keys leniently; :attr:`remarks` are the warnings, in order.

    ``known`` are the names of all keys at the top.
    """

    def __init__(self, document: Document, known: Sequence[str]) -> None:
        self._document = document
        self._known = list(known)
        self._dropped: list[ConfigError] = []
        self._read: list[SettingError] = []
        # Numbers of YAML 1.1 as the file has them: by node, and by place.
        self._written: dict[int, str] = {}
        self._places: dict[SettingPath, str] = {}

    @property
    def remarks(self) -> list[ConfigError]:
        """What was ignored or replaced, and by what."""
        document = self._document
        read = (document.placed(document.as_written(remark)) for remark in self._read)
        found = sorted([*self._dropped, *read], key=lambda remark: remark.line or 0)
        if len(found) > _MOST_REMARKS:
            more = f"{len(found) - _MOST_REMARKS} more values are read as version 1 did"
            found[_MOST_REMARKS:] = [ConfigError(more, file=document.file)]
        return found

    def drop_ignored(self) -> None:
        """Remove what 1.x ignored, so that nothing in it is an error; to be called once."""
        root = self._document.root
        if not isinstance(root, yaml.MappingNode):
            return
        self._drop((), root, self._is_ignored_node, lambda name: name in _OWN)
        for key, value in root.value:
            if key.value == _LOGGER and isinstance(value, yaml.MappingNode):
                self._drop((_LOGGER,), value, lambda name, _: name not in _LOGGER_KEYS, bool)
        root.value = [(key, self._without_rest(key, value)) for key, value in root.value]
        for path, node in self._numbers(root):
            self._read_number(path, node)

    def read(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data with old keys whose values are valid as far as 1.x accepted them."""
        self._read = []
        known = {}
        for name, value in data.items():
            section = value is None or isinstance(value, (dict, bool))
            if self._is_ignored(name, section=section):  # from a merged mapping
                self._remark((name,), "unknown key, ignored")
            else:
                known[name] = value
        for name in (_WEBSOCKET, _ZEROMQ):
            if isinstance(known.get(name), list):
                known[name] = self._address(name, list(known[name]))
        if _LOGGER in known:
            known[_LOGGER] = self._logger(known[_LOGGER])
        return known

    # Keys

    def _is_ignored(self, name: object, *, section: bool) -> bool:
        """Return whether a key at the top is neither one of ours nor a section nearly named so.

        What is nearly one of 1.x's own keys was ignored by 1.x, too.
        """
        if not isinstance(name, str):
            return True
        return name not in self._known and (not section or self._nearest(name) in ("", *_OWN))

    def _is_ignored_node(self, name: str, value: yaml.Node) -> bool:
        section = isinstance(value, yaml.MappingNode) or value.tag in (NULL_TAG, BOOL_TAG)
        return self._is_ignored(name, section=section)

    def _nearest(self, name: str) -> str:
        return next(iter(difflib.get_close_matches(name, self._known, n=1, cutoff=_NEARLY)), "")

    def _drop(
        self,
        path: tuple[str, ...],
        node: yaml.MappingNode,
        ignored: Callable[[str, yaml.Node], bool],
        repeatable: Callable[[str], bool],
    ) -> None:
        kept: list[tuple[yaml.Node, yaml.Node]] = []
        places: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_TAG:
                name = str(key.value)
                place = (*path, name)
                if (key.tag not in KEY_TAGS or ignored(name, value)) and _was_readable(value):
                    hint = ""
                    if path or self._nearest(name):
                        names = list(_LOGGER_KEYS) if path else self._known
                        hint = f"; {did_you_mean(name, names)}"
                    self._drop_remark(place, f"unknown key, ignored{hint}", key)
                    continue
                if name in places and repeatable(name):
                    self._drop_remark(place, "duplicate key; this one counts", key)
                    kept[places[name]] = (key, value)
                    continue
                places[name] = len(kept)
            kept.append((key, value))
        node.value = kept

    def _without_rest(self, key: yaml.Node, value: yaml.Node) -> yaml.Node:
        """Return an address of ZeroMQ as 1.x read it: without what follows the port."""
        if key.value != _ZEROMQ or not isinstance(value, yaml.SequenceNode):
            return value
        rest = value.value[2:]
        if not rest or not all(_was_readable(item) for item in rest):
            return value
        self._drop_remark((_ZEROMQ, 2), "ignored, as version 1 did", rest[0])
        # Another key may name the same list by an alias.
        return yaml.SequenceNode(value.tag, value.value[:2], value.start_mark, None)

    def _drop_remark(self, path: SettingPath, problem: str, node: yaml.Node) -> None:
        self._dropped.append(self._document.placed(SettingError(path, problem), node))

    def _numbers(self, root: yaml.MappingNode) -> Iterator[tuple[SettingPath, Any]]:
        for key, value in root.value:
            if key.value in (_WEBSOCKET, _ZEROMQ) and isinstance(value, yaml.SequenceNode):
                for index, item in enumerate(value.value[1:2], 1):
                    yield (key.value, index), item
            elif key.value == _LOGGER and isinstance(value, yaml.MappingNode):
                value.value = [(name, _scalar(name, item)) for name, item in value.value]
                for name, item in value.value:
                    if isinstance(name, yaml.ScalarNode) and name.value in _MOST:
                        yield (_LOGGER, name.value), item

    def _read_number(self, path: SettingPath, node: yaml.Node) -> None:
        """Read a number of YAML 1.1, which 1.x read, that YAML 1.2 does not know."""
        if id(node) in self._written:  # by an alias
            self._places[path] = self._written[id(node)]
        if not isinstance(node, yaml.ScalarNode) or node.tag != TEXT_TAG or node.style:
            return
        loader: Any = yaml.SafeLoader("")
        tag = loader.resolve(yaml.ScalarNode, node.value, (True, False))
        if tag not in (INT_TAG, FLOAT_TAG):
            return
        try:
            found = loader.construct_object(yaml.ScalarNode(tag, node.value))
        except ValueError:
            return
        self._written[id(node)] = self._places[path] = node.value
        node.value, node.tag = str(found), tag

    # Values

    def _remark(self, path: SettingPath, problem: str) -> None:
        self._read.append(SettingError(path, f"{problem}, as version 1 did"))

    def _address(self, name: str, address: list[Any]) -> list[Any]:
        if len(address) < 2:
            return address
        if name == _ZEROMQ and len(address) > 2:
            self._remark((name, 2), "ignored")
            del address[2:]
        if len(address) > 2:
            return address
        host, port = address
        if host is None and name == _WEBSOCKET:
            self._remark((name, 0), "no host; listening on all addresses")
            host = ""
        elif isinstance(host, (int, float)) and host is not bool(host) and name == _ZEROMQ:
            self._remark((name, 0), f"{host} is read as the host {str(host)!r}")
            host = str(host)
        free = (None, "") if name == _WEBSOCKET else ("*",)
        if port in free:
            self._remark((name, 1), "no port; listening on any free one")
            return [host, 0]
        number = _websocket_port(port) if name == _WEBSOCKET else _zeromq_port(port)
        if number is None:
            return [host, port]
        written = self._places.get((name, 1)) or _shown(port)
        if written.strip("'+ ") != str(number):
            self._remark((name, 1), f"{written} is read as {number}")
        return [host, number]

    def _logger(self, logger: Any) -> Any:
        if isinstance(logger, (str, list)):
            self._remark((_LOGGER,), "expected a section of keys; using the defaults")
            return {}
        if not isinstance(logger, dict):
            return logger
        defaults = LoggerSettings()
        read: dict[str, Any] = {}
        for name, value in logger.items():
            if name not in _LOGGER_KEYS:  # from a merged mapping
                self._remark((_LOGGER, str(name)), "unknown key, ignored")
            elif name in _MOST:
                default = getattr(defaults, name.replace("-", "_"))
                read[name] = self._size(name, value, default)
            elif name == "level" and not (isinstance(value, str) and value in LEVELS):
                self._remark(
                    (_LOGGER, name),
                    f"expected {', '.join(LEVELS)}, not {_shown(value)}; using {defaults.level}",
                )
            elif name == "file" and not (isinstance(value, str) and value):
                self._remark((_LOGGER, name), f"expected the name of a file; using {defaults.file}")
            else:
                read[name] = value
        return read

    def _size(self, name: str, value: Any, default: int) -> int:
        path, most = (_LOGGER, name), _MOST[name]
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            self._remark(path, f"expected a whole number, not {_shown(value)}; using {default}")
            return default
        used = max(0, min(number, most))
        written = self._places.get(path)
        plain = isinstance(value, str) and value.isdecimal()
        if written or (not plain and (value != used or isinstance(value, (bool, str)))):
            never = " (never rotate)" if not used else ""
            self._remark(path, f"{written or _shown(value)} is read as {used}{never}")
        return used


def _websocket_port(port: Any) -> int | None:
    """Return what asyncio makes of a port: any number, or the name of a service."""
    try:
        return int(port)
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return socket.getservbyname(port, "tcp")
    except (TypeError, OSError, UnicodeError):
        return None


def _zeromq_port(port: Any) -> int | None:
    """Return what libzmq makes of a port: the number that the text begins with, in 16 bits."""
    found = _NUMBER.match(str(port))
    number = int(found[1]) if found else 0
    if str(port) == "0":
        return 0
    return number & 0xFFFF or None if -(2**31) <= number < 2**31 else None


def _scalar(key: yaml.Node, value: yaml.Node) -> yaml.Node:
    """Return a value of ``logger``, or a text in place of one that cannot be valid there."""
    if key.tag == MERGE_TAG or (isinstance(value, yaml.ScalarNode) and "\0" not in value.value):
        return value
    shown = "{...}" if isinstance(value, yaml.MappingNode) else "[...]"
    return yaml.ScalarNode(TEXT_TAG, "" if key.value == "file" else shown, value.start_mark, None)


def _was_readable(root: yaml.Node) -> bool:
    """Return whether 1.x could read a value that it ignored: all tags in it are YAML's own."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.tag != MERGE_TAG and node.tag not in yaml.SafeLoader.yaml_constructors:
            return False
        if isinstance(node, yaml.MappingNode):
            waiting += [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
