"""The timeline: outages from results, bursts of errors, and what followed what, in words."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from monitor.alerts.incidents import Incident
from monitor.alerts.maintenance import occurrences
from monitor.alerts.settings import Maintenance
from monitor.relay.feed import Outage as FeedOutage
from monitor.web.timeline.bursts import Slot, bursts_of
from monitor.web.timeline.events import Event, length_of
from monitor.web.timeline.following import tell
from monitor.web.timeline.grouping import grouped
from monitor.web.timeline.outages import (
    FailedWindow,
    Outage,
    Turn,
    outages_of_turns,
    rough_outages,
    with_current,
)
from monitor.web.timeline.sources import (
    by_incident,
    event_of_incident,
    event_of_outage,
    events_of_feed,
)

NOW = 1_800_000_000.0  # on a minute
HOUR, DAY = 3600, 86400


def down(name: str, start: float, end: float | None = None, error: str = "refused") -> Event:
    return event_of_outage(Outage(zlib.crc32(name.encode()), start, end, f"{error}: {name}"), name)


def change(kind: str, at: float, title: str, model: str = "churn", took: float = 0.0) -> Event:
    return Event(
        id=f"model-{at}",
        lane="models",
        kind=kind,
        start=at - took,
        end=at,
        title=title,
        names=(model,),
    )


# What followed what


def test_an_outage_says_how_long_after_a_rollout_it_began() -> None:
    events = [change("upgraded", NOW, "churn 1.5 rolled out"), down("front page", NOW + 125)]
    told = tell(events)[1]
    assert told.said == "front page went down 2 min after churn 1.5 rolled out"
    assert told.after == events[0].id


def test_an_outage_during_a_rollout_says_so() -> None:
    rollout = change("upgraded", NOW, "churn 1.5 rolled out", took=60)
    assert tell([rollout, down("x", NOW - 40)])[1].said == "x went down as churn 1.5 rolled out"


def test_the_end_names_the_rollback_that_came_before_it() -> None:
    events = [
        change("upgraded", NOW, "churn 1.5 rolled out"),
        down("front page", NOW + 20, NOW + 400),
        change("rolledback", NOW + 340, "churn was rolled back to 1.4"),
    ]
    assert tell(events)[1].said == (
        "front page went down 20 s after churn 1.5 rolled out;"
        " well again 1 min after churn was rolled back to 1.4"
    )


def test_a_change_with_the_name_of_the_site_comes_before_a_later_one() -> None:
    events = [
        change("upgraded", NOW - 60, "churn 1.5 rolled out"),
        change("deployed", NOW - 10, "hints 2 was deployed", "hints"),
        down("churn API", NOW),
    ]
    said = tell(events)[2].said
    assert said.startswith("churn API went down 1 min after churn 1.5 rolled out")
    assert said.endswith("(and 1 other change in the 15 min before)")


def test_nothing_is_said_of_what_was_long_before_or_at_an_unknown_time() -> None:
    long_ago = change("upgraded", NOW - 901, "churn 1.5 rolled out")
    unknown = Event(
        id="m", lane="models", kind="deployed", start=NOW - 5, end=NOW - 5, title="x", rough=True
    )
    later = change("upgraded", NOW + 31, "churn 1.6 rolled out")
    told = tell([long_ago, unknown, down("x", NOW), later])[2]
    assert (told.said, told.after) == ("", None)


def test_a_lost_broker_is_said_of_errors_in_the_logs_and_of_no_site() -> None:
    gap = Event(id="g", lane="feed", kind="gap", start=NOW, end=None, title="a gap")
    errors = Event(
        id="e", lane="logs", kind="errors", start=NOW + 5, end=NOW + 9, title="9 errors of a"
    )
    told = tell([gap, errors, down("x", NOW + 5)])
    assert told[1].said == "9 errors of a began 5 s after the relay lost a broker"
    assert told[2].said == ""


# Outages


turns = st.lists(st.tuples(st.floats(1, 1000), st.booleans()), max_size=40)


@given(turns)
def test_outages_are_exactly_the_time_in_which_the_last_result_was_down(
    steps: list[tuple[float, bool]],
) -> None:
    at, found = 0.0, []
    for step, up in steps:
        at += step
        found.append(Turn(at, up, "x"))
    outages = outages_of_turns(1, found)
    for turn, following in zip(found, [*found[1:], None], strict=False):
        middle = turn.at + 0.5 if following is None else (turn.at + following.at) / 2
        inside = [
            each
            for each in outages
            if each.start <= middle and (each.end is None or middle < each.end)
        ]
        assert len(inside) == (not turn.up)


def test_failed_windows_that_follow_one_another_are_one_outage() -> None:
    windows = [FailedWindow(1, start, 60, 1, 1) for start in (0, 60, 180)]
    found = rough_outages(windows, until=1000)
    assert [(each.start, each.end) for each in found] == [(0, 120), (180, 240)]
    assert rough_outages(windows, until=200)[-1].end is None


def test_what_is_down_now_goes_on_and_what_is_not_has_ended() -> None:
    outages = [
        Outage(1, NOW - 50, None, "a", seen=NOW - 9),
        Outage(2, NOW - 50, None, "b", seen=NOW - 9),
    ]
    found = with_current(outages, {1: NOW - 50, 3: NOW - 5, 4: None}, until=NOW)
    assert [(each.job_id, each.end) for each in found] == [(1, None), (2, NOW - 9), (3, None)]


def test_an_outage_that_an_incident_tells_of_is_not_told_twice() -> None:
    def incident(opened_at: float, resolved_at: float | None) -> Incident:
        return Incident(
            id="i",
            rule="r",
            watch="site",
            subject="1",
            job=1,
            title="x",
            opened_at=opened_at,
            resolved_at=resolved_at,
            reason="refused",
        )

    first, second = Outage(1, NOW, NOW + 60, ""), Outage(1, NOW + 600, None, "")
    late = incident(NOW + 30, NOW + 61)
    told, others = by_incident([first, second], [late])
    assert (told, others) == ({"i": [first]}, [second])
    # A rule may have waited for some failures.
    assert event_of_incident(late, "x", told["i"]).start == NOW
    assert by_incident([first, second], [incident(NOW + 700, None)])[1] == [first]


# Groups


def test_an_outage_of_many_sites_is_one_event_and_other_errors_stay_apart() -> None:
    many = [down(f"site {n:03}", NOW + n % 7, NOW + 100 + n) for n in range(980)]
    found = grouped([*many, down("other", NOW, error="timeout")], within_s=60)
    assert [each.count for each in found] == [980, 1] or [each.count for each in found] == [1, 980]
    group = max(found, key=lambda each: each.count)
    assert group.title == "980 sites down"
    assert group.detail == "refused"
    assert group.end == NOW + 100 + 979
    assert tell([change("upgraded", NOW - 60, "churn 1.5 rolled out"), group])[1].said == (
        "980 sites went down 1 min after churn 1.5 rolled out"
    )


def test_a_group_goes_on_while_one_of_it_does() -> None:
    found = grouped([down("a", NOW, NOW + 5), down("b", NOW), down("c", NOW + 1)], within_s=60)
    assert [each.end for each in found] == [None]
    assert found[0].detail == "refused; 2 of them still"


def test_a_site_that_flaps_is_not_many_sites() -> None:
    some = [down("a", NOW + n, NOW + n + 1) for n in range(0, 50, 10)]
    assert [each.count for each in grouped(some, within_s=60)] == [1] * 5


def test_what_began_at_another_time_is_another_group() -> None:
    some = [down(f"{n}", NOW + n * 100) for n in range(5)]
    assert len(grouped(some, within_s=60)) == 5


# Errors, the feed, maintenance


def test_errors_that_follow_closely_are_one_burst() -> None:
    slots = [Slot(at, who, 2) for at in (0, 1, 2) for who in ("a", "b")] + [Slot(60, "a", 1)]
    (burst,) = bursts_of(slots, width=1)
    assert (burst.start, burst.end, burst.errors) == (0, 3, 12)
    assert dict(burst.senders) == {"a": 6, "b": 6}


def test_gaps_of_the_feed_that_overlap_are_one() -> None:
    outages = [FeedOutage(10, 20), FeedOutage(15, 30), FeedOutage(50, None), FeedOutage(1, 2)]
    found = events_of_feed(outages, since=5, until=60)
    assert [(each.start, each.end) for each in found] == [(10, 30), (50, None)]


def test_maintenance_is_read_from_the_clock_on_the_wall() -> None:
    window = Maintenance(
        name="night", days=("sun",), from_="01:00", until="04:00", time_zone="Europe/Prague"
    )
    # The Sundays of 2026-03-22, -03-29 (clocks are set ahead) and -04-05.
    since = 1_774_134_000.0  # 2026-03-22 00:00 in Prague
    found = occurrences(window, since, since + 15 * DAY)
    assert [end - start for start, end in found] == [3 * HOUR, 2 * HOUR, 3 * HOUR]
    assert found[0][0] == since + HOUR
    assert occurrences(window, since + 5 * HOUR, since + 5 * DAY) == []


def test_lengths_are_words_of_the_page() -> None:
    assert [length_of(s) for s in (0, 59.6, 125, 3600, 7260, 90000)] == [
        "0 s",
        "1 min",
        "2 min",
        "1 h",
        "2 h 1 min",
        "1 d 1 h",
    ]


# From the database
