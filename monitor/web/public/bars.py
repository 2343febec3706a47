"""The days of a site as a strip of bars in SVG. Pure.

Equal days in a row are one dashed line, so that a thousand sites make a small page. A day
with downtime is taller than the others: the strip can be read without its colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Literal

from monitor.web.public.status import PublicDay
from monitor.web.public.words import day_text, duration_text

__all__ = ["day_bars", "days_in_words"]

DAY_S = 86400
_STEP, _HEIGHT = 8, 34

Kind = Literal["gap", "up", "some", "down"]
# The middle of each kind's line; its thickness is in status.css.
_MIDDLE: dict[Kind, int] = {"gap": 30, "up": 20, "some": 18, "down": 17}
# From this share of downtime on, a day is a bad one.
_BAD = 0.05


def day_bars(days: Sequence[PublicDay], at: float) -> str:
    """Return the strip; the last day is the one (UTC) that ``at`` (epoch s) is in."""
    first = _first_day(days, at)
    lines = []
    for kind, group in groupby(enumerate(days), key=lambda each: _line(each[1])):
        places = [place for place, _ in group]
        begin, end = places[0], places[-1]
        words = escape(_run_words(days, begin, end, first))
        lines.append(
            f'<path class="{kind[0]}" d="M{begin * _STEP + 1} {_MIDDLE[kind[0]]}'
            f'H{end * _STEP + _STEP - 1}"><title>{words}</title></path>'
        )
    label = escape(days_in_words(days, at))
    return (
        f'<svg class="days" viewBox="0 0 {len(days) * _STEP} {_HEIGHT}"'
        f' preserveAspectRatio="none" role="img" aria-label="{label}">{"".join(lines)}</svg>'
    )


def days_in_words(days: Sequence[PublicDay], at: float) -> str:
    """Return what the strip shows as a sentence."""
    known = sum(1 for each in days if each.known_s)
    if not known:
        return f"Not checked in the last {len(days)} days"
    first = _first_day(days, at)
    bad = [place for place, each in enumerate(days) if _kind(each) in ("some", "down")]
    if not bad:
        return f"Last {len(days)} days: no downtime on the {known} that were checked"
    worst = max(bad, key=lambda place: days[place].down_s)
    return (
        f"Last {len(days)} days: downtime on {len(bad)} of the {known} that were checked, most on"
        f" {day_text(first + worst * DAY_S)}, {duration_text(days[worst].down_s)}"
    )


def _first_day(days: Sequence[PublicDay], at: float) -> float:
    return at - at % DAY_S - (len(days) - 1) * DAY_S


def _kind(day: PublicDay) -> Kind:
    if not day.known_s:
        return "gap"
    if day.down_s < 1:
        return "up"
    return "down" if day.down_s >= _BAD * day.known_s else "some"


def _line(day: PublicDay) -> tuple[Kind, float]:
    """Return what the days of a line have in common; one with downtime has words of its own."""
    kind = _kind(day)
    return kind, day.down_s if kind in ("some", "down") else 0.0


def _run_words(days: Sequence[PublicDay], begin: int, end: int, first: float) -> str:
    when = day_text(first + begin * DAY_S)
    if end != begin:
        when += f" to {day_text(first + end * DAY_S)}"
    kind = _kind(days[begin])
    if kind == "gap":
        return f"{when}: not checked"
    if kind == "up":
        return f"{when}: no downtime"
    return f"{when}: down for {duration_text(days[begin].down_s)}"
