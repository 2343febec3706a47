"""Badges: small pictures for a README or a web page. Pure.

They have no style sheet and no script, as the places that show them allow neither.
"""

from __future__ import annotations

import unicodedata
from html import escape

from monitor.web.public.status import PublicState
from monitor.web.public.words import percent_text

__all__ = ["state_badge", "uptime_badge"]

_LONGEST_LABEL = 40
_HEIGHT = 20
_PADDING = 6
# The widths of letters at 11 px in the fonts that are asked for; textLength makes it exact.
_NARROW = frozenset("fijlrtI.,:;!|'()[] ")
_WIDE = frozenset("mwMWQO@%")

# White text on each of these has a contrast of at least 4.5.
_GREEN, _AMBER, _RED, _BLUE, _GREY = "#12714a", "#8a5600", "#bb2426", "#2754c5", "#57606c"
_COLOURS: dict[PublicState, str] = {
    "up": _GREEN,
    "degraded": _AMBER,
    "down": _RED,
    "maintenance": _BLUE,
    "unknown": _GREY,
    "paused": _GREY,
}
_GOOD, _FAIR = 0.99, 0.95


def state_badge(name: str, state: PublicState) -> str:
    """Return a badge of a site's state as SVG."""
    return _badge(name, state, _COLOURS[state])


def uptime_badge(name: str, span: str, share: float | None) -> str:
    """Return a badge of a site's uptime in a span as SVG."""
    if share is None:
        return _badge(f"{_shortened(name)} {span}", "unknown", _GREY)
    colour = _GREEN if share >= _GOOD else _AMBER if share >= _FAIR else _RED
    return _badge(f"{_shortened(name)} {span}", percent_text(share), colour)


def _badge(label: str, value: str, colour: str) -> str:
    label = _shortened(label, _LONGEST_LABEL + 5)
    left, right = (round(_width(text) + 2 * _PADDING) for text in (label, value))
    width = left + right
    title = escape(f"{label}: {value}")
    text = (
        '<text x="{x}" y="14" textLength="{length}" lengthAdjust="spacingAndGlyphs">{text}</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}" role="img"'
        f' aria-label="{title}"><title>{title}</title>'
        f'<clipPath id="r"><rect width="{width}" height="{_HEIGHT}" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="{_HEIGHT}" fill="#3b434f"/>'
        f'<rect x="{left}" width="{right}" height="{_HEIGHT}" fill="{colour}"/></g>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11">'
        + text.format(x=_PADDING, length=left - 2 * _PADDING, text=escape(label))
        + text.format(x=left + _PADDING, length=right - 2 * _PADDING, text=escape(value))
        + "</g></svg>\n"
    )


def _shortened(text: str, longest: int = _LONGEST_LABEL) -> str:
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _width(text: str) -> float:
    return sum(_letter_width(each) for each in text)


def _letter_width(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 12.0
    if letter in _NARROW:
        return 4.6
    if letter in _WIDE:
        return 10.5
    return 7.8 if letter.isupper() else 6.9
