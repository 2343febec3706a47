"""Tables that fit in a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.commands import alerts, job, rejected
from monitor.commands.screen import Column, table_lines

WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), max_size=60)
LONG = "a name that is longer than 40 columns of a terminal"
JOB = ("1234", "down", "59 min", "500", "12345.6 ms", "59 min", LONG, f"https://{LONG}/")
REJECTED = ("1796052247638608", f"not-a-result: {LONG}", "0", LONG, LONG, LONG)
INCIDENT = ("0123456789abcdef01234567", "acknowledged", "59 min", LONG, LONG, LONG)


@given(rows=st.lists(st.tuples(*[WORDS] * 6), max_size=5), width=st.integers(1, 200))
def test_no_line_is_wider_than_the_terminal_and_none_is_missing(
    rows: list[tuple[str, ...]], width: int
) -> None:
    lines = list(table_lines(alerts.COLUMNS, rows, [""] * len(rows), width))
    assert len(lines) == len(rows) + 1
    assert all(line.cell_len <= width for line in lines)


@pytest.mark.parametrize(
    ("columns", "row", "shown"),
    [
        (job.COLUMNS, JOB, (0, 1, 6)),
        (alerts.COLUMNS, INCIDENT, (0, 1, 4)),
        (rejected.COLUMNS, REJECTED, (0, 1)),
    ],
)
def test_40_columns_show_what_one_needs(
    columns: tuple[Column, ...], row: tuple[str, ...], shown: tuple[int, ...]
) -> None:
    header, line = (found.plain for found in table_lines(columns, [row], [""], 40))
    assert {columns[place].name for place in shown} <= set(header.split())
    whole = [place for place in shown if columns[place].least is None]
    assert {row[place] for place in whole} <= set(line.split())
    # Enough of an id to name it.
    assert line.split()[0][:8] == row[0][:8]
