"""The rules for sites and certificates, against a model that counts in another way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.alerts.incidents import Changes
from monitor.alerts.jobs import JobFacts
from monitor.alerts.judging import ResultJudge
from monitor.alerts.result_view import ResultView
from monitor.alerts.settings import CertificateRule, Match, Rule, SiteRule
from monitor.alerts.transitions import DEPENDENCY, Observed

DAY_S = 86400.0
SITE = SiteRule(name="site", failures=2)


def observed(job_id: int, at: float, *, up: bool, **fields: object) -> Observed:
    result = ResultView(job_id=job_id, scheduled_at=at, checked_at=at, up=up, **fields)  # type: ignore[arg-type]
    return Observed(result, at, late=False)


def feed(judge: ResultJudge, *results: Observed) -> Changes:
    judged = judge.judge(results)
    judge.apply(judged)
    return judged


def make(*rules: Rule, jobs: Sequence[JobFacts] = ()) -> ResultJudge:
    judge = ResultJudge()
    judge.adopt(rules, {job.id: job for job in jobs} or None)
    return judge


def facts(job_id: int, **keys: object) -> JobFacts:
    return JobFacts(id=job_id, name=f"site {job_id}", url="http://x/", interval=60.0, **keys)  # type: ignore[arg-type]


def open_by_counting(ups: Sequence[bool], failures: int, successes: int) -> list[tuple[int, str]]:
    """Return at which results an incident opens and ends: by looking back at each."""
    events: list[tuple[int, str]] = []
    is_open = False
    for place in range(len(ups)):
        seen = ups[: place + 1]
        wanted = successes if is_open else failures
        if len(seen) >= wanted and all(up is is_open for up in seen[-wanted:]):
            # Results before the last change do not count again.
            if events and place - events[-1][0] < wanted:
                continue
            events.append((place, "resolved" if is_open else "opened"))
            is_open = not is_open
    return events


@given(
    ups=st.lists(st.booleans(), max_size=60),
    failures=st.integers(1, 4),
    successes=st.integers(1, 4),
    cuts=st.lists(st.integers(0, 60), max_size=10),
    repeats=st.booleans(),
)
@example(ups=[False] * 3, failures=3, successes=1, cuts=[1, 2], repeats=True)
def test_incidents_are_those_that_counting_gives_in_whatever_batches_results_come(
    ups: list[bool], failures: int, successes: int, cuts: list[int], repeats: bool
) -> None:
    judge = make(SiteRule(name="site", failures=failures, successes=successes))
    results = [observed(1, float(place + 1), up=up) for place, up in enumerate(ups)]
    edges = sorted({0, *(cut for cut in cuts if cut < len(ups)), len(ups)})
    found: list[tuple[int, str]] = []
    for begin, end in itertools.pairwise(edges):
        batch = results[begin:end]
        if repeats:
            # The last ones come again, as after a lost acknowledgement.
            batch = [*results[max(0, begin - 2) : begin], *batch]
        if begin % 2:
            # This commit fails: the same is judged again, after a restart from what is stored.
            judge.judge(batch)
            states = [(rule, subject, state) for (rule, subject), state in judge.states().items()]
            judge.load(states)
            judge.remember(each.result for each in results[:begin])
            batch = results[begin:end]
        changes = feed(judge, *batch)
        found += [(int(each.opened_at) - 1, "opened") for each in changes.opened]
        found += [(int(each.at) - 1, "resolved") for each in changes.resolved]
    assert sorted(found) == open_by_counting(ups, failures, successes)


def test_each_rule_and_each_job_counts_for_itself() -> None:
    judge = make(
        SITE,
        SiteRule(name="production", failures=1, match=Match(tags=("production",))),
        SiteRule(name="one", failures=1, match=Match(jobs=(3,))),
        jobs=[facts(1, tags=("production",)), facts(2, tags=("test",)), facts(3)],
    )
    changes = feed(judge, *(observed(job_id, 1.0, up=False) for job_id in (1, 2, 3)))
    assert [(each.rule, each.subject) for each in changes.opened] == [
        ("production", "1"),
        ("one", "3"),
    ]
    assert changes.opened[0].title == "site 1 is down"
    changes = feed(judge, *(observed(job_id, 2.0, up=False) for job_id in (1, 2, 3)))
    assert [(each.rule, each.subject) for each in changes.opened] == [
        ("site", "1"),
        ("site", "2"),
        ("site", "3"),
    ]


def test_a_degraded_result_counts_where_the_rule_says_so() -> None:
    judge = make(SITE, SiteRule(name="slow", failures=1, degraded=True))
    changes = feed(judge, observed(1, 1.0, up=True, degraded=True))
    assert [(each.rule, each.title[-12:]) for each in changes.opened] == [("slow", " is degraded")]
    assert len(feed(judge, observed(1, 2.0, up=True)).resolved) == 1


def test_a_certificate_opens_with_too_few_days_left_and_ends_when_it_is_renewed() -> None:
    judge = make(CertificateRule(name="certificate", days=14))
    soon, later = 10 * DAY_S, 90 * DAY_S
    assert not feed(judge, observed(1, 1.0, up=True, certificate_expires_at=later))
    (opened,) = feed(judge, observed(1, 2.0, up=True, certificate_expires_at=soon)).opened
    assert opened.title.endswith("has a certificate that expires in 9 days")
    # A site that is down shows no certificate, and that says nothing.
    assert not feed(judge, observed(1, 3.0, up=False, certificate_expires_at=None))
    assert not feed(judge, observed(1, 4.0, up=True, certificate_expires_at=soon))
    (resolved,) = feed(judge, observed(1, 5.0, up=True, certificate_expires_at=later)).resolved
    assert resolved.id == opened.id


@pytest.mark.parametrize("jobs", [(), (facts(1),)])
def test_a_rule_that_is_removed_ends_what_it_opened_with_the_next_good_result(
    jobs: Sequence[JobFacts],
) -> None:
    judge = make(SITE, jobs=jobs)
    (opened,) = feed(judge, observed(1, 1.0, up=False), observed(1, 2.0, up=False)).opened
    judge.adopt([], {job.id: job for job in jobs} or None)
    assert not feed(judge, observed(1, 3.0, up=False)).resolved
    assert [each.id for each in feed(judge, observed(1, 4.0, up=True)).resolved] == [opened.id]
    assert judge.states() == {}


def test_a_job_that_is_stopped_or_removed_ends_its_incidents_with_that_reason() -> None:
    judge = make(SiteRule(name="site", failures=1), jobs=[facts(1), facts(2), facts(3)])
    feed(judge, *(observed(job_id, 1.0, up=False) for job_id in (1, 2, 3)))
    assert not judge.gone(2.0)
    judge.adopt([SiteRule(name="site", failures=1)], {1: facts(1), 2: facts(2, running=False)})
    gone = judge.gone(3.0)
    judge.apply(gone)
    assert [each.note for each in gone.resolved] == ["the job was stopped", "the job was removed"]
    assert list(judge.states()) == [("site", "1")]


def test_of_a_job_that_others_depend_on_the_last_result_is_kept() -> None:
    judge = make(jobs=[facts(1), facts(2, depends_on=(1,))])
    feed(judge, observed(1, 1.0, up=False), observed(1, 2.0, up=False), observed(2, 2.0, up=False))
    ((key, state),) = judge.states().items()
    assert key == (DEPENDENCY, "1")
    assert (state.failures, state.since, state.bad_at) == (1, 1.0, 2.0)
    feed(judge, observed(1, 3.0, up=True))
    state = judge.states()[key]
    assert (state.failures, state.since, state.bad_at) == (0, 3.0, 3.0)


@pytest.mark.parametrize("location", [None, "prague"])
def test_results_that_were_judged_before_a_restart_do_not_count_again(
    location: str | None,
) -> None:
    judge = make(SITE)
    first = observed(1, 1.0, up=False, location=location)
    feed(judge, first)
    restarted = make(SITE)
    restarted.load([(rule, subject, state) for (rule, subject), state in judge.states().items()])
    restarted.remember([first.result])
    assert not feed(restarted, first)
    assert len(feed(restarted, observed(1, 2.0, up=False, location=location)).opened) == 1


def test_a_clock_that_is_set_back_blinds_no_rule() -> None:
    judge = make(SITE)
    feed(judge, *(observed(1, 10_000.0 + second, up=True) for second in range(10)))
    changes = feed(judge, observed(1, 5000.0, up=False), observed(1, 5001.0, up=False))
    assert len(changes.opened) == 1
