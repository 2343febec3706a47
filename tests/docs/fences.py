"""The fenced blocks of a Markdown page, taken apart. Pure.

How pages are written: a block names its language. ``sh`` is commands; ``console`` is commands
behind ``$ `` with what they print, where ``...`` stands for what varies; and a block of any
other language whose first line is a comment with a path is that file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Command", "Fence", "commands", "fences", "indented", "shows"]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n`]*$")
_FILE = re.compile(r"^(?:#|//) (?P<path>(?:/|\./)?[\w@./-]+\.\w+|/etc/[\w@./-]+)$")
_HEREDOC = re.compile(r"<<'?(?P<word>[A-Z]+)'?")


@dataclass(frozen=True, slots=True)
class Fence:
    """One block; ``line`` is that of its first line, from 1."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where a reader finds it."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The path in its first line, where the block is a file."""
        if self.language in {"sh", "console"}:
            return None
        found = _FILE.match(self.text.partition("\n")[0])
        return found["path"] if found else None


@dataclass(frozen=True, slots=True)
class Command:
    """One command with what it should print; None where the page does not say."""

    text: str
    expected: str | None


def fences(page: str, text: str) -> Iterator[Fence]:
    """Yield the blocks of a page in their order."""
    opened: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _FENCE.match(line)
        if opened is None and found:
            opened = (number + 1, found["language"], found["indent"])
            lines = []
        elif opened is not None and line.strip() == "```":
            yield Fence(page, opened[0], opened[1], "".join(f"{item}\n" for item in lines))
            opened = None
        elif opened is not None:
            lines.append(line.removeprefix(opened[2]))
    if opened is not None:
        raise ValueError(f"{page}:{opened[0]}: a block without an end")


def indented(text: str) -> Iterator[int]:
    """Yield the lines at which a block begins that is code by its indent alone."""
    inside = False
    before = ""
    listed = False
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line) or line.strip() == "```":
            inside = not inside
        elif not inside and line.startswith("    ") and not before.strip() and not listed:
            yield number
        if line and not line.startswith(" "):
            listed = bool(re.match(r"([-*:]|\d+\.) ", line))
        before = line


def commands(fence: Fence) -> Iterator[Command]:
    """Yield what a ``sh`` or ``console`` block runs, one command after the other."""
    lines = fence.text.splitlines()
    console = fence.language == "console"
    while lines:
        line = lines.pop(0)
        if console:
            if not line.startswith("$ "):
                raise ValueError(f"{fence.place}: output before a command: {line}")
            line = line[2:]
        elif not line.strip() or line.startswith("#"):
            continue
        taken = [line]
        while taken[-1].endswith("\\") and lines:
            taken.append(lines.pop(0))
        heredoc = _HEREDOC.search(line)
        while heredoc and lines and taken[-1] != heredoc["word"]:
            taken.append(lines.pop(0))
        if not console:
            yield Command("\n".join(taken), None)
            continue
        printed = []
        while lines and not lines[0].startswith("$ "):
            printed.append(lines.pop(0))
        yield Command("\n".join(taken), "\n".join(printed) if printed else None)


def shows(expected: str, printed: str) -> bool:
    """Tell whether ``printed`` is what a page shows.

    A line of ``...`` stands for any lines, ``...`` in a line for any text in it; how many
    blanks stand between words, and blank lines, do not matter.
    """
    pattern = ""
    for line in expected.strip().splitlines():
        words = " ".join(line.split())
        if words == "...":
            pattern += r"(?:.*\n)*"
        elif words:
            pattern += "(?:.*?)".join(re.escape(piece) for piece in words.split("...")) + r"\n"
    got = "".join(f"{' '.join(line.split())}\n" for line in printed.splitlines() if line.strip())
    return re.fullmatch(pattern, got) is not None
