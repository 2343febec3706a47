"""The public status page as HTML, which needs no script to be read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby

from monitor.web.public.bars import day_bars
from monitor.web.public.status import (
    PublicIncident,
    PublicMaintenance,
    PublicSite,
    PublicState,
    PublicStatus,
)
from monitor.web.public.words import (
    day_text,
    duration_text,
    instant_text,
    iso_text,
    percent_text,
)

__all__ = ["render_page"]

# Of more sites the page shows those in trouble first, and says how many others there are.
_MOST_SITES = 1000
_MOST_INCIDENTS = 50
_MOST_NAMES = 8

_WORDS: dict[PublicState, str] = {
    "up": "Up",
    "degraded": "Degraded",
    "down": "Down",
    "maintenance": "Maintenance",
    "unknown": "Not known",
    "paused": "Paused",
}
_SIGNS: dict[PublicState, str] = {
    "up": "M5 12.5l4.5 4.5L19 7",
    "degraded": "M12 4v9M12 18v.5",
    "down": "M6 6l12 12M18 6L6 18",
    "maintenance": "M12 7v5l3.5 2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18",
    "unknown": "M9 9a3 3 0 1 1 4.2 2.7c-.8.4-1.2 1-1.2 2.3M12 18v.5",
    "paused": "M8 6v12M16 6v12",
}
_ICONS: dict[PublicState, str] = {
    "up": "up",
    "degraded": "warn",
    "down": "down",
    "maintenance": "warn",
    "unknown": "none",
    "paused": "none",
}


def render_page(status: PublicStatus) -> str:
    """Return the page; its links are relative to where it is served."""
    return "".join(_page(status))


def _page(status: PublicStatus) -> Iterator[str]:
    title = escape(status.title)
    down = sum(1 for each in status.sites if each.state == "down")
    mark = f"({down} down) " if down else ""
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta name="description" content="{escape(status.verdict)}">\n'
        f"<title>{mark}{title}</title>\n"
        f'<link rel="icon" href="static/icons/{_ICONS[status.state]}.svg" type="image/svg+xml">\n'
        f'<link rel="alternate" type="application/atom+xml" title="{title}"'
        ' href="status/incidents.atom">\n'
        '<link rel="stylesheet" href="static/colours.css">\n'
        '<link rel="stylesheet" href="static/status.css">\n'
        '<script type="module" src="static/status.js"></script>\n'
        '</head>\n<body>\n<div class="page">\n'
        f"<header><h1>{title}</h1></header>\n"
        '<p class="stale" role="alert" hidden></p>\n<main>\n'
    )
    yield (
        f'<section class="verdict {status.state}">{_sign(status.state, 28)}'
        f'<div><p class="words">{escape(status.verdict)}</p>'
        f'<p class="muted">As of {_time(status.at)}</p></div></section>\n'
    )
    yield from _maintenance(status.maintenance)
    yield from _sites(status)
    yield from _incidents(status)
    yield "</main>\n"
    yield (
        '<footer><p><a href="status/incidents.atom">Feed of incidents</a></p>'
        "<p>Uptime is the share of the checked time in which a site was up. Days are in UTC.</p>"
        "</footer>\n"
        '<div class="unseen" aria-live="polite"></div>\n</div>\n</body>\n</html>\n'
    )


def _maintenance(items: Iterable[PublicMaintenance]) -> Iterator[str]:
    for each in items:
        shown = each.names[:_MOST_NAMES]
        names = ", ".join(f"<bdi>{escape(name)}</bdi>" for name in shown)
        if each.all_sites:
            names = "all sites"
        elif len(each.names) > len(shown):
            names += f" and {len(each.names) - len(shown)} more"
        when = (
            f"until {_time(each.ends_at)}"
            if each.under_way
            else f"{_time(each.begins_at)} to {_time(each.ends_at)}"
        )
        word = "Maintenance" if each.under_way else "Planned maintenance"
        yield f'<p class="note"><b>{word}</b> {when}: {names}</p>\n'


def _sites(status: PublicStatus) -> Iterator[str]:
    shown = status.sites
    if len(shown) > _MOST_SITES:
        shown = sorted(shown, key=lambda each: each.state == "up")[:_MOST_SITES]
    yield '<section aria-labelledby="sites"><h2 id="sites">Sites</h2>\n'
    if status.history_from is None:
        yield '<p class="note">The history cannot be read at the moment.</p>\n'
    yield '<ul class="sites">\n'
    for each in shown:
        yield _site(each, status.at if status.history_from is None else status.history_from)
    yield "</ul>\n"
    left = len(status.sites) - len(shown)
    if left:
        worst = [each for each in status.sites if each.state != "up"]
        words = ", which are up" if len(worst) <= _MOST_SITES else ""
        yield f'<p class="muted more">And {left} more{words}.</p>\n'
    yield "</section>\n"


def _site(site: PublicSite, at: float) -> str:
    since = ""
    if site.state == "down" and site.since is not None:
        since = f'<p class="since">Since {_time(site.since)}</p>'
    head = (
        f'<li id="site-{site.id}"><h3><bdi>{escape(site.name)}</bdi></h3>'
        f'<p class="state {site.state}">{_sign(site.state, 16)}{_WORDS[site.state]}</p>{since}'
    )
    history = site.history
    if history is None:
        return head + "</li>\n"
    spans = "".join(
        f"<div><dt>{_span(name)}</dt><dd>{percent_text(share)}</dd></div>"
        for name, share in history.uptime.items()
    )
    return (
        f"{head}{day_bars(history.days, at)}"
        f'<p class="scale"><span>{len(history.days)} days ago</span><span>Today</span></p>'
        f'<dl class="spans">{spans}</dl></li>\n'
    )


def _incidents(status: PublicStatus) -> Iterator[str]:
    if status.history_from is None:
        return
    yield '<section aria-labelledby="incidents"><h2 id="incidents">Incidents</h2>\n'
    if not status.incidents:
        yield '<p class="muted">None in the last 90 days.</p>\n'
    shown = status.incidents[:_MOST_INCIDENTS]
    for day, group in groupby(shown, key=lambda each: day_text(each.started_at)):
        yield f'<h3 class="day">{day}</h3>\n<ul class="incidents">\n'
        for each in group:
            yield _incident(each, status.at)
        yield "</ul>\n"
    left = len(status.incidents) - len(shown)
    if left:
        yield f'<p class="muted more">And {left} earlier ones; the feed has more.</p>\n'
    yield "</section>\n"


def _incident(incident: PublicIncident, now: float) -> str:
    name = f"<bdi>{escape(incident.name)}</bdi>"
    if incident.ended_at is None:
        lasts = duration_text(now - incident.started_at)
        return (
            f'<li class="open">{_sign("down", 16)}<div><b>{name} is down</b>'
            f"<p>since {_time(incident.started_at)}, for {lasts}</p></div></li>\n"
        )
    lasted = duration_text(incident.ended_at - incident.started_at)
    return (
        f"<li>{_sign('up', 16)}<div><b>{name} was down for {lasted}</b>"
        f"<p>{_time(incident.started_at)} to {_time(incident.ended_at)}</p></div></li>\n"
    )


def _time(at: float) -> str:
    return f'<time datetime="{iso_text(at)}">{instant_text(at)}</time>'


def _span(name: str) -> str:
    return name.replace("h", " hours").replace("d", " days")


def _sign(state: PublicState, size: int) -> str:
    return (
        f'<svg class="sign" viewBox="0 0 24 24" width="{size}" height="{size}" aria-hidden="true">'
        f'<path d="{_SIGNS[state]}"/></svg>'
    )
