"""Tables and lines that fit in the terminal; elsewhere, whole rows with tabs for cut and awk."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

__all__ = ["Column", "Screen", "print_folded", "print_table", "table_lines"]

_GAP: Final = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column: those of high ``rank`` (1 is the highest) stay where not all fit.

    One with ``least`` may be narrower than its texts, down to so many cells; which of these are
    ``ids``, of which the first letters suffice, have no ellipsis.
    """

    name: str
    rank: int
    least: int | None = None
    right: bool = False
    ids: bool = False


class Screen(Console):
    """A console that leaves a broken pipe to main: rich would exit with 1, without a word."""

    def on_broken_pipe(self) -> None:
        """Raise the error as it was."""
        raise BrokenPipeError


def print_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], styles: Sequence[str], *, empty: str
) -> None:
    """Print rows; ``styles`` has that of the second cell of each, and ``empty`` stands for none."""
    if not sys.stdout.isatty():
        for row in ([column.name for column in columns], *rows):
            print("\t".join(row))
        return
    console = Screen(highlight=False)
    if not rows:
        console.print(empty)
        return
    for line in table_lines(columns, rows, styles, console.width):
        console.print(line, no_wrap=True, crop=True)


def table_lines(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], styles: Sequence[str], width: int
) -> Iterator[Text]:
    """Yield the header and the rows, with as many columns as fit."""
    widths = _widths(columns, rows, width)
    yield _line([Text(column.name, style="dim") for column in columns], columns, widths)
    for row, style in zip(rows, styles, strict=True):
        texts = [Text(text, style=style if place == 1 else "") for place, text in enumerate(row)]
        yield _line(texts, columns, widths)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> dict[int, int]:
    """Return the widths of the columns that are shown, by place."""
    whole = [
        max(cell_len(text) for text in (column.name, *(row[place] for row in rows)))
        for place, column in enumerate(columns)
    ]
    found: dict[int, int] = {}
    left = width + _GAP
    for place in sorted(range(len(columns)), key=lambda place: columns[place].rank):
        least = columns[place].least
        need = whole[place] if least is None else min(whole[place], least)
        if need + _GAP > left:
            break
        found[place] = need
        left -= need + _GAP
    # What is left goes to texts that are cut, ids last.
    for place in sorted(found, key=lambda place: (columns[place].ids, columns[place].rank)):
        more = min(left, whole[place] - found[place])
        found[place] += more
        left -= more
    return found


def _line(texts: Sequence[Text], columns: Sequence[Column], widths: dict[int, int]) -> Text:
    cells = []
    for place, width in sorted(widths.items()):
        text, column = texts[place], columns[place]
        shown = text.plain
        if cell_len(shown) > width:
            end = "" if column.ids else "…"
            shown = set_cell_size(shown, width - len(end)) + end
        room = " " * (width - cell_len(shown))
        cells.append(Text(room + shown if column.right else shown + room, style=text.style))
    line = Text(" " * _GAP).join(cells)
    line.rstrip()
    return line


def print_folded(lines: Iterable[Text], *, indent: int = 4) -> None:
    """Print lines; in a terminal, what does not fit continues on the next line, indented."""
    console = Screen(highlight=False)
    for line in lines:
        if not sys.stdout.isatty() or line.cell_len <= console.width:
            console.print(line, soft_wrap=True)
            continue
        for number, piece in enumerate(line.wrap(console, max(1, console.width - indent))):
            piece.rstrip()
            console.print(Text(" " * indent if number else "") + piece, soft_wrap=True)
