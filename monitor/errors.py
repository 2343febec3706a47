"""The error classes.

::

    MonitorError             1   something failed; its text is one clear line
    ├── UsageError           2   the command line is invalid
    ├── SettingError        78   a setting is invalid (with its path in the config)
    ├── ConfigError         78   the same with file and line, as a user sees it
    ├── ListenError          1   cannot listen on an address
    ├── MissingPackageError  1   a part needs a package that is not installed
    └── UnavailableError    75   a server did not respond in time; a retry may help

The number is the exit status for the error (sysexits.h: 75 is EX_TEMPFAIL, 78 EX_CONFIG).
``str(error)`` is one line without secrets.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

__all__ = [
    "ConfigError",
    "DefectError",
    "ListenError",
    "MissingPackageError",
    "MonitorError",
    "SettingError",
    "UnavailableError",
    "UsageError",
    "all_of",
    "described",
    "without_traces",
]

SettingPath = tuple[str | int, ...]


def key_text(path: SettingPath) -> str:
    """Return a path into the config as text: ``probes.jobs[2].url``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


# A value, such as a list of hosts, may be as long as its file.
_MOST_LETTERS = 2000


def _in_a_line(text: str) -> str:
    # Keys, hosts and names of files may have any characters.
    if len(text) > _MOST_LETTERS:
        text = f"{text[:_MOST_LETTERS]}..."
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class MonitorError(Exception):
    """Base of all errors that the daemon and its commands raise on purpose."""

    exit_status = 1
    # Whether stderr has the line already.
    logged = False

    def lines(self) -> list[str]:
        """Return the lines for stderr and the log."""
        return [str(self)]


T = TypeVar("T", bound=MonitorError)


def without_traces(error: T) -> T:
    """Return the same error without what it came from.

    This would keep alive all that was read, until the loop frees it at once.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


class UsageError(MonitorError):
    """The command line is invalid."""

    exit_status = 2


class SettingError(MonitorError):
    """A setting is invalid.

    ``path`` leads to it from the struct that was checked; callers add the steps to that struct
    with :meth:`under`. A ``whole`` path is from the top of the config, for a setting that several
    parts share. ``among`` is for a setting that names an item of a list, which lacks it: the path
    of the list, and key and value of the item. ``others`` are further errors of the same struct.
    """

    exit_status = 78

    def __init__(
        self,
        path: SettingPath,
        problem: str,
        *,
        whole: bool = False,
        among: tuple[SettingPath, str, object] | None = None,
        others: Sequence[SettingError] = (),
    ) -> None:
        self.path = path
        self.problem = problem
        self.whole = whole
        self.among = among
        self.others = others

    def under(self, *steps: str | int) -> SettingError:
        """Return the same error with ``steps`` before its path, unless it is whole."""
        among = self.among
        if among is not None:
            among = (*steps, *among[0]), among[1], among[2]
        return SettingError(
            self.path if self.whole else (*steps, *self.path),
            self.problem,
            whole=self.whole,
            among=among,
            others=[each.under(*steps) for each in self.others],
        )

    def __str__(self) -> str:
        return f"{key_text(self.path)}: {self.problem}" if self.path else self.problem


class ConfigError(MonitorError):
    """A config file is invalid: ``FILE:LINE: key: problem``.

    ``line`` counts from 1; None if there is none, as for a missing file. ``others`` are further
    errors of the file, in its order.
    """

    exit_status = 78

    def __init__(self, problem: str, *, file: str, line: int | None = None, key: str = "") -> None:
        self.problem = problem
        self.file = file
        self.line = line
        self.key = key
        self.others: tuple[ConfigError, ...] = ()

    def lines(self) -> list[str]:
        """Return one line for this error and one for each of the others."""
        return [str(self), *map(str, self.others)]

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return _in_a_line(": ".join(part for part in (place, self.key, self.problem) if part))


def all_of(errors: Sequence[ConfigError]) -> ConfigError:
    """Return the first of ``errors`` in the file, with the others; there is at least one."""
    first, *others = sorted(errors, key=lambda error: error.line or 0)
    first.others = tuple(others)
    return first


class ListenError(MonitorError):
    """Cannot listen on an address: in use, not of this host, or not permitted."""

    def __init__(self, key: str, address: str, problem: str) -> None:
        self.key = key
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        hint = ""
        if self.problem == os.strerror(errno.EADDRINUSE):
            port = self.address.rpartition(":")[2]
            hint = f" (perhaps by another instance); ss -ltnp sport = :{port} shows the process"
        if self.problem == os.strerror(errno.EACCES):
            hint = "; ports below 1024 need CAP_NET_BIND_SERVICE: see recodex-monitor(8)"
        return _in_a_line(f"{self.key}: cannot listen on {self.address}: {self.problem}{hint}")


class MissingPackageError(MonitorError):
    """A part needs a Python package that is not installed."""

    def __init__(self, part: str, module: str, package: str) -> None:
        self.part = part
        self.module = module
        self.package = package

    def __str__(self) -> str:
        return f"{self.part} needs the Python module {self.module}; install {self.package}"


def described(error: BaseException) -> str:
    """Return the type and the text of an error, if it can say any."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error may be as defect as what raises it
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class DefectError(MonitorError):
    """An internal error, which nobody expected.

    It is a line that says where it was raised.
    """

    def __init__(self, what: str, error: BaseException) -> None:
        self.what = what
        self.problem = _in_a_line(described(error))
        frames = traceback.extract_tb(error.__traceback__)
        if frames:
            self.problem += f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"

    def __str__(self) -> str:
        return f"{self.what}: {self.problem}"


class UnavailableError(MonitorError):
    """A server did not respond in time; ``server`` is its name without secrets."""

    exit_status = 75

    def __init__(self, server: str, problem: str) -> None:
        self.server = server
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.server}: {self.problem}"
