"""Every active site in exactly one shard, whatever is added."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import SettingError
from monitor.probes.checks.http import HttpJob
from monitor.probes.part import own_jobs
from monitor.probes.settings import ProbesSettings
from monitor.probes.sharding import ordinal_id, producers_needed, shard
from monitor.probes.source import JobList

sites = st.dictionaries(st.integers(1, 10**9), st.booleans(), max_size=200)


def jobs(chosen: dict[int, bool]) -> JobList:
    return JobList(
        tuple(
            HttpJob(id=job_id, url="http://x/", active=active) for job_id, active in chosen.items()
        )
    )


@given(sites, sites, st.integers(1, 50))
def test_every_active_site_is_in_exactly_one_shard(
    before: dict[int, bool], added: dict[int, bool], per: int
) -> None:
    for chosen in (before, {**before, **added}):
        active = jobs(chosen).active()
        needed = producers_needed(len(active), per)
        found = [job.id for i in range(1, needed + 1) for job in shard(active, per, i)]
        assert sorted(found) == sorted(job_id for job_id, is_active in chosen.items() if is_active)
        assert all(0 < len(shard(active, per, i)) <= per for i in range(1, needed + 1))


@given(sites, st.sets(st.integers(1, 10**9)), st.integers(1, 50), st.data())
def test_a_stop_moves_no_other_site_to_another_producer(
    chosen: dict[int, bool], stopped: set[int], per: int, data: st.DataObject
) -> None:
    if chosen:
        stopped |= data.draw(st.sets(st.sampled_from(sorted(chosen))))
    before = jobs(chosen)
    after = dataclasses.replace(before, stopped=frozenset(stopped))
    needed = producers_needed(len(before.active()), per)
    assert producers_needed(len(after.active()), per) == needed
    for producer in (None, *range(1, needed + 1)):
        settings = ProbesSettings(id=producer, websites_per_container=per)
        ran = [job.id for job in own_jobs(before, settings)]
        assert [job.id for job in own_jobs(after, settings)] == [
            job_id for job_id in ran if job_id not in stopped
        ]


@given(st.integers(0, 5000), st.integers(1, 1000))
def test_an_id_beyond_the_last_range_is_an_error(active: int, per: int) -> None:
    needed = producers_needed(active, per)
    with pytest.raises(SettingError, match=rf"^id: there is no range {needed + 1}: {active} "):
        shard(range(active), per, needed + 1)


def test_a_producer_too_many_of_a_database_idles_until_there_are_sites_for_it() -> None:
    settings = ProbesSettings(source="database", id=2, websites_per_container=2)
    assert own_jobs(JobList(()), settings) == []
    assert own_jobs(jobs({1: True, 2: True}), settings) == []
    assert [job.id for job in own_jobs(jobs({1: True, 2: True, 3: True}), settings)] == [3]
    with pytest.raises(SettingError, match="there is no range 2"):
        own_jobs(JobList(()), settings.replace(source="config"))


@pytest.mark.parametrize(
    ("pod", "found"),
    [("probes-0", 1), ("a-b-41", 42), ("probes", None), ("", None), ("probes-x", None)],
)
def test_a_statefulset_pods_ordinal_plus_one(pod: str, found: int | None) -> None:
    assert ordinal_id(pod) == found
