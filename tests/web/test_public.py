"""What the public status says, and how: states, sentences, outages, bars, badges and the feed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.messages import Phases, Result
from monitor.probes.checks.http import HttpJob
from monitor.web.jobs.entries import JobEntry
from monitor.web.jobs.uptime import Counted
from monitor.web.public.badges import state_badge, uptime_badge
from monitor.web.public.bars import day_bars, days_in_words
from monitor.web.public.feed import render_feed
from monitor.web.public.page import render_page
from monitor.web.public.past import DAYS, history_of
from monitor.web.public.status import (
    Outage,
    PublicDay,
    PublicIncident,
    PublicMaintenance,
    PublicSite,
    PublicState,
    PublicStatus,
    completed_outages,
    joined_outages,
    public_name,
    public_state,
    verdict,
)
from monitor.web.public.words import duration_text, percent_text

NOW = 1_800_000_000.0
DAY_S = 86400
ATOM = "{http://www.w3.org/2005/Atom}"


def job(**keys: Any) -> HttpJob:
    return HttpJob(**{"id": 1, "url": "http://secret/", "interval": 60, **keys})


def entry(state: str, *, checked_ago: float | None = 10.0, degraded: bool = False) -> JobEntry:
    last = None
    if checked_ago is not None:
        last = Result(
            job_id=1,
            url="http://secret/",
            scheduled_at=NOW - checked_ago,
            checked_at=NOW - checked_ago,
            up=state == "up",
            status=None,
            response_time=None,
            duration=0.1,
            error=None,
            matched=None,
            phases=Phases(),
            degraded=degraded,
        )
    common: dict[str, Any] = {"kind": "http", "url": "", "method": "GET", "tags": []}
    return JobEntry(
        id=1,
        name="",
        interval=60,
        timeout=10,
        active=True,
        depends_on=[],
        state=state,
        since=None,
        next_run=None,
        last=last,
        **common,
    )


def status(
    names: list[str], *, states: list[PublicState] | None = None, title: str = "Status"
) -> PublicStatus:
    sites = [
        PublicSite(
            id=number,
            name=name,
            state=(states or ["up"] * len(names))[number - 1],
            since=NOW - 60,
            history=history_of([Counted(NOW - 3600, 3600, 10, 1)], NOW),
        )
        for number, name in enumerate(names, 1)
    ]
    return PublicStatus(
        title=title,
        at=NOW,
        state="up",
        verdict="x",
        sites=sites,
        maintenance=[
            PublicMaintenance(
                names=names, all_sites=False, begins_at=NOW, ends_at=NOW + 60, under_way=True
            )
        ],
        incidents=[
            PublicIncident(id=name, site=1, name=name, started_at=NOW - 100, ended_at=ended_at)
            for name in names
            for ended_at in (None, NOW)
        ],
        history_from=NOW,
    )


@pytest.mark.parametrize(
    ("given_entry", "maintained", "expected"),
    [
        (entry("up"), False, "up"),
        (entry("up", degraded=True), False, "degraded"),
        (entry("down"), False, "down"),
        (entry("down"), True, "maintenance"),
        (entry("up"), True, "up"),
        (entry("up", checked_ago=None), False, "unknown"),
        (entry("unknown: depends on 7"), False, "unknown"),
        (entry("up", checked_ago=200), False, "up"),
        (entry("up", checked_ago=400), False, "unknown"),
        (entry("down", checked_ago=400), False, "unknown"),
        (entry("stopped"), False, "paused"),
    ],
)
def test_a_state_is_only_good_while_checks_come(
    given_entry: JobEntry, maintained: bool, expected: str
) -> None:
    assert public_state(given_entry, job(), now=NOW, maintained=maintained) == expected


@given(st.lists(st.sampled_from(["up", "degraded", "down", "maintenance", "unknown", "paused"])))
def test_the_verdict_is_never_better_than_a_site(states: list[PublicState]) -> None:
    state, words = verdict(states)
    assert (state == "up") == (bool(states) and {*states} <= {"up", "paused"} and "up" in states)
    assert (state == "down") == ("down" in states)
    assert words


def test_the_verdict_counts() -> None:
    assert verdict(["up", "down"]) == ("down", "1 of 2 sites is down")
    assert verdict(["down", "down"]) == ("down", "All 2 sites are down")
    assert verdict(["up", "unknown", "unknown"])[1] == "2 of 3 sites are not known at the moment"


def test_a_name_is_never_a_url_and_hides_nothing() -> None:
    assert public_name(job(name="")) == "Site 1"
    assert public_name(job(name="a\u202eb\x07\n c\ufffe")) == "ab c"


def test_outages_of_a_site_that_overlap_are_one() -> None:
    found = joined_outages(
        [
            Outage("a", 1, 10, 20),
            Outage("b", 1, 15, 30),
            Outage("c", 2, 12, None),
            Outage("d", 1, 40, None),
            Outage("e", 1, 50, 60),
        ]
    )
    assert found == [Outage("d", 1, 40, None), Outage("c", 2, 12, None), Outage("a", 1, 10, 30)]


def test_an_outage_ends_with_the_site_that_is_up_again_and_one_that_is_down_has_one() -> None:
    found = completed_outages(
        [Outage("a", 1, 10, None), Outage("b", 2, 9, None)],
        {1: ("up", 20), 2: ("unknown", None), 3: ("down", 30)},
    )
    assert [(each.job_id, each.started_at, each.ended_at) for each in found] == [
        (3, 30, None),
        (1, 10, 20),
        (2, 9, None),
    ]


def test_each_day_has_its_downtime() -> None:
    today = NOW - NOW % DAY_S
    history = history_of(
        [
            Counted(today - 3 * DAY_S, 3600, 60, 30),
            Counted(today, 3600, 60, 0),
            Counted(NOW - 60, 3600, 1, 1),  # the present hour, of which a minute has passed
        ],
        NOW,
    )
    assert len(history.days) == DAYS
    assert [(each.known_s, each.down_s) for each in history.days if each.known_s] == [
        (3600, 1800),
        (3660, 60),
    ]
    assert history.uptime["24h"] == pytest.approx(3600 / 3660)
    assert history.uptime["90d"] == pytest.approx(1 - 1860 / 7260)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 3600.0, 86400.0]), st.sampled_from([0.0, 0.01, 0.5, 1.0])),
        min_size=1,
        max_size=90,
    )
)
def test_the_bars_cover_every_day_once(given_days: list[tuple[float, float]]) -> None:
    days = [PublicDay(known_s=known, down_s=known * share) for known, share in given_days]
    drawn = ET.fromstring(day_bars(days, NOW))
    covered: list[int] = []
    for path in drawn.iter("path"):
        begin, end = path.attrib["d"].removeprefix("M").replace(" ", "H").split("H")[::2]
        covered += range(int(begin) // 8, int(end) // 8 + 1)
    assert covered == list(range(len(days)))
    assert days_in_words(days, NOW)


def test_the_bars_say_which_day_was_worst() -> None:
    days = [PublicDay(known_s=DAY_S, down_s=down) for down in (0, 7260, 60, 0)]
    assert days_in_words(days, NOW) == (
        "Last 4 days: downtime on 2 of the 4 that were checked, most on 13 Jan 2027, 2 h 1 min"
    )


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_are_text_and_never_markup(name: str, title: str) -> None:
    shown = status([public_name(job(name=name))], title=public_name(job(name=title)))
    feed = ET.fromstring(render_feed(shown))
    assert feed.findtext(f"{ATOM}title") == shown.title
    assert len(feed.findall(f"{ATOM}entry")) == 2
    page = render_page(shown)
    assert len(re.findall(r"<li[ >]", page)) == 3
    assert page.count("<script") == 1
    for badge in (
        state_badge(shown.sites[0].name, "up"),
        uptime_badge(shown.sites[0].name, "7d", 0.5),
    ):
        drawn = ET.fromstring(badge)
        assert {each.tag.partition("}")[2] for each in drawn.iter()} == {
            "svg",
            "title",
            "clipPath",
            "rect",
            "g",
            "text",
        }


def test_an_entry_of_the_feed_keeps_its_id_when_the_incident_ends() -> None:
    shown = status(["a"])
    entries = ET.fromstring(render_feed(shown)).findall(f"{ATOM}entry")
    assert entries[0].findtext(f"{ATOM}id") == entries[1].findtext(f"{ATOM}id")
    assert [each.findtext(f"{ATOM}title") for each in entries] == [
        "a is down",
        "a was down for 1 min",
    ]


def test_a_page_of_many_sites_is_bounded_and_says_what_it_leaves_out() -> None:
    names = [f"site {number}" for number in range(1, 1502)]
    states: list[PublicState] = ["up"] * 1500
    page = render_page(status(names, states=[*states, "down"]))
    assert page.count('<li id="site-') == 1000
    assert 'id="site-1501"' in page
    assert "And 501 more, which are up." in page
    assert len(page) < 2_000_000


def test_a_failure_is_never_rounded_away() -> None:
    assert percent_text(1 - 1e-9) == "99.99 %"
    assert percent_text(1.0) == "100 %"
    assert percent_text(0.9821) == "98.21 %"
    assert percent_text(None) == "–"
    assert [duration_text(each) for each in (5, 65, 3600, 90000)] == [
        "5 s",
        "1 min",
        "1 h",
        "1 d 1 h",
    ]
