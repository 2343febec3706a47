"""The rules for sites that are checked from several locations."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from monitor.alerts.incidents import Changes
from monitor.alerts.settings import CertificateRule, SiteRule
from monitor.alerts.transitions import DEPENDENCY, Observed
from tests.alerts.test_judging import DAY_S, facts, feed, make, observed


def told(location: str, at: float, *, up: bool, **fields: Any) -> Observed:
    return observed(1, at, up=up, location=location, **fields)


@given(
    turns=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=25),
    failures=st.integers(1, 3),
    successes=st.integers(1, 3),
    quorum=st.none() | st.integers(1, 3),
    restarts=st.sets(st.integers(0, 80)),
    # How far ahead the clock of each is, in s.
    clocks=st.lists(st.sampled_from([0, 0, 300, -300, 4000]), min_size=3, max_size=3),
)
def test_an_incident_is_open_while_a_quorum_of_the_locations_has_failed_so_often(
    *,
    turns: list[list[bool]],
    failures: int,
    successes: int,
    quorum: int | None,
    restarts: set[int],
    clocks: list[int],
) -> None:
    judge = make(SiteRule(name="site", failures=failures, successes=successes), jobs=[facts(1)])
    bad = dict.fromkeys("abc", False)
    history: dict[str, list[bool]] = {name: [] for name in bad}
    is_open, heard = False, set()
    for number, (turn, (name, up)) in enumerate(
        (turn, item) for turn, ups in enumerate(turns) for item in zip("abc", ups, strict=True)
    ):
        # All three have the same times on the grid, each by its own clock.
        ahead = clocks["abc".index(name)]
        each = told(name, 5001 + 60.0 * turn + ahead, up=up, quorum=quorum)
        if number in restarts:
            judge.judge([each])  # whose commit fails
            judge.load(
                [(rule, subject, state) for (rule, subject), state in judge.states().items()]
            )
        changes = feed(judge, each)
        if is_open and name not in heard:
            bad[name] = True  # it ends nothing by its first result
        heard.add(name)
        seen = history[name]
        seen.append(up)
        wanted = successes if bad[name] else failures
        if len(seen) >= wanted and all(each is bad[name] for each in seen[-wanted:]):
            bad[name] = not bad[name]
            seen.clear()
        needed = len(heard) // 2 + 1 if quorum is None else quorum
        expected = sum(bad.values()) >= needed
        if sum(bad.values()) == len(heard) < needed:
            expected = is_open  # too few to tell
        assert len(changes.opened) == (expected and not is_open)
        assert len(changes.resolved) == (is_open and not expected)
        is_open = expected


def test_the_reason_names_the_locations_in_which_the_site_is_down() -> None:
    judge = make(SiteRule(name="site", failures=1), jobs=[facts(1)])
    feed(judge, *(told(name, 1.0, up=True) for name in ("brno", "prague", "zlin")))
    assert not feed(judge, told("prague", 61.0, up=False, error="refused: x")).opened
    (opened,) = feed(judge, told("zlin", 61.0, up=False, error="timeout: 10 s ran out")).opened
    assert opened.reason == "timeout: 10 s ran out (prague, zlin: 2 of 3 locations)"
    assert opened.job_id == 1


def test_a_location_that_is_silent_for_three_runs_does_not_count() -> None:
    judge = make(SiteRule(name="site", failures=1), jobs=[facts(1)])
    feed(judge, told("a", 1.0, up=True), told("b", 1.0, up=True), told("c", 1.0, up=True))
    for turn in range(1, 4):
        assert not feed(judge, told("a", 60.0 * turn, up=False)).opened
    # b and c have been silent for longer than 3 intervals and a check's timeout by now.
    assert feed(judge, told("a", 240.0, up=False)).opened


def test_one_locations_word_is_no_quorum_and_the_part_says_so_while_that_lasts() -> None:
    judge = make(SiteRule(name="site", failures=1), jobs=[facts(1), facts(2)])

    def say(name: str, at: float, *, up: bool) -> Changes:
        return feed(judge, told(name, at, up=up, quorum=2))

    for turn in range(3):
        assert not say("a", 60.0 * turn, up=False).opened
        assert judge.too_few() is None  # others may be about to report
    for turn in range(3, 6):
        assert not say("a", 60.0 * turn, up=turn == 4).opened
    assert judge.too_few() == (
        "site 1 is checked only from a, and its quorum is 2: it cannot be found down"
    )
    (opened,) = say("b", 310.0, up=False).opened
    assert judge.too_few() is None

    # What both saw continues while one of them is silent, and when it is back.
    for turn in range(6, 16):
        assert not say("a", 60.0 * turn, up=False).resolved
    assert judge.too_few() is not None
    assert not say("b", 910.0, up=False).resolved
    (resolved,) = say("b", 970.0, up=True).resolved
    assert resolved.id == opened.id

    for turn in range(16, 26):
        say("a", 60.0 * turn, up=True)
    assert judge.too_few() is not None
    judge.adopt([SiteRule(name="site")], {1: facts(1, running=False)})
    assert judge.too_few() is None


def test_after_a_restart_locations_that_were_well_count_before_their_next_result() -> None:
    first = make(SiteRule(name="site", failures=1), jobs=[facts(1)])
    feed(first, told("a", 1.0, up=True), told("b", 1.0, up=True), told("c", 1.0, up=True))
    second = make(SiteRule(name="site", failures=1), jobs=[facts(1)])
    second.load([(rule, subject, state) for (rule, subject), state in first.states().items()])
    assert not feed(second, told("a", 61.0, up=False)).opened


def test_good_results_of_known_locations_need_no_commit() -> None:
    judge = make(SiteRule(name="site"), jobs=[facts(1)])
    assert feed(judge, told("a", 1.0, up=True), told("b", 1.0, up=True))
    assert not judge.judge([told(name, 61.0, up=True) for name in "ab"])


def test_an_incident_from_before_the_locations_goes_on_in_them() -> None:
    judge = make(SiteRule(name="site", failures=2), jobs=[facts(1)])
    (opened,) = feed(judge, observed(1, 1.0, up=False), observed(1, 61.0, up=False)).opened
    assert not feed(judge, told("a", 121.0, up=False)).resolved
    (resolved,) = feed(judge, told("a", 181.0, up=True)).resolved
    assert resolved.id == opened.id


def test_a_dependency_is_down_where_a_quorum_says_so() -> None:
    judge = make(SiteRule(name="site"), jobs=[facts(1), facts(2, depends_on=(1,))])

    def down() -> bool:
        return bool(judge.states()[DEPENDENCY, "1"].failures)

    feed(judge, told("a", 1.0, up=False, quorum=2))
    assert not down()
    for name in "abc":
        feed(judge, told(name, 31.0, up=True))
    feed(judge, told("a", 61.0, up=False))
    assert not down()
    feed(judge, told("b", 61.0, up=False))
    assert down()
    feed(judge, told("c", 61.0, up=True))
    assert down()
    feed(judge, told("a", 121.0, up=True))
    assert not down()


def test_one_location_that_gets_an_old_certificate_is_enough_and_others_do_not_resolve_it() -> None:
    judge = make(CertificateRule(name="cert", days=14), jobs=[facts(1)])
    old, new = DAY_S * 7, DAY_S * 90
    count = 0
    for turn, (name, expires) in enumerate(
        itertools.islice(itertools.cycle([("a", old), ("b", new)]), 6)
    ):
        changes = feed(judge, told(name, turn + 1.0, up=True, certificate_expires_at=expires))
        count += len(changes.opened)
        assert not changes.resolved
    assert count == 1
    assert feed(judge, told("a", 9.0, up=True, certificate_expires_at=new)).resolved


def test_the_locations_of_a_job_that_was_removed_are_forgotten() -> None:
    judge = make(SiteRule(name="site"), jobs=[facts(1)])
    feed(judge, told("a", 1.0, up=True))
    judge.adopt([SiteRule(name="site")], {2: facts(2)})
    judge.apply(judge.gone(5.0))
    assert judge.states() == {}
