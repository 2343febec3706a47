"""The one tree of errors.

::

    MonitorError             1   something failed; its text is one clear line
    ├── UsageError           2   the command line makes no sense
    ├── SettingError        78   a setting is wrong (known by its path in the config)
    ├── ConfigError         78   the same with file and line, as a user sees it
    ├── ListenError          1   an address can't be listened on
    ├── MissingPackageError  1   a part that is on needs a package that is not installed
    └── UnavailableError    75   a server did not answer in time; trying again may help

The number is the exit status of a program that ends with it (sysexits.h: 75 is
EX_TEMPFAIL, 78 EX_CONFIG). ``str(error)`` is always one line without secrets.
"""

from __future__ import annotations

import errno
import os

__all__ = [
    "ConfigError",
    "ListenError",
    "MissingPackageError",
    "MonitorError",
    "SettingError",
    "UnavailableError",
    "UsageError",
]

SettingPath = tuple[str | int, ...]


def key_text(path: SettingPath) -> str:
    """Write a path into the config the way an operator would: ``probes.jobs[2].url``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _in_a_line(text: str) -> str:
    # Keys, hosts and names of files may hold anything that YAML can write.
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class MonitorError(Exception):
    """Root of all errors that the daemon and its commands raise on purpose."""

    exit_status = 1
    # Set once the line is on stderr, so that it is not said twice.
    logged = False


class UsageError(MonitorError):
    """The command line makes no sense."""

    exit_status = 2


class SettingError(MonitorError):
    """A setting is wrong.

    ``path`` leads to it from the top of whatever raised this; a caller further up may
    put its own steps in front with :meth:`under`. A ``whole`` path leads from the top of the
    config already: what several parts share is one setting, and any of them may report it.
    """

    exit_status = 78

    def __init__(self, path: SettingPath, problem: str, *, whole: bool = False) -> None:
        self.path = path
        self.problem = problem
        self.whole = whole

    def under(self, *steps: str | int) -> SettingError:
        """Return the same error with ``steps`` in front of its path, unless that is whole."""
        return self if self.whole else SettingError((*steps, *self.path), self.problem)

    def __str__(self) -> str:
        return f"{key_text(self.path)}: {self.problem}" if self.path else self.problem


class ConfigError(MonitorError):
    """A config file is wrong: ``FILE:LINE: key: what is wrong``.

    ``line`` counts from 1; None if no line is to blame (a missing file).
    """

    exit_status = 78

    def __init__(self, problem: str, *, file: str, line: int | None = None, key: str = "") -> None:
        self.problem = problem
        self.file = file
        self.line = line
        self.key = key

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return _in_a_line(": ".join(part for part in (place, self.key, self.problem) if part))


class ListenError(MonitorError):
    """An address can't be listened on: in use, not ours, not permitted."""

    def __init__(self, key: str, address: str, problem: str) -> None:
        self.key = key
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        hint = ""
        if self.problem == os.strerror(errno.EADDRINUSE):
            port = self.address.rpartition(":")[2]
            hint = f"; another instance, perhaps: ss -ltnp sport = :{port} shows whose it is"
        return _in_a_line(f"{self.key}: cannot listen on {self.address}: {self.problem}{hint}")


class MissingPackageError(MonitorError):
    """A part that is on needs a Python package that is not installed."""

    def __init__(self, part: str, module: str, package: str) -> None:
        self.part = part
        self.module = module
        self.package = package

    def __str__(self) -> str:
        return f"{self.part} needs the Python module {self.module}; install {self.package}"


class UnavailableError(MonitorError):
    """A server did not answer in time; ``server`` names it without secrets."""

    exit_status = 75

    def __init__(self, server: str, problem: str) -> None:
        self.server = server
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.server}: {self.problem}"
