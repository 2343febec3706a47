"""The public status page, badges and feed of a daemon: without a token, and of the chosen sites."""

from __future__ import annotations

import signal
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from tests.waiting import wait_for
from tests.web.public import SECRET, TITLE, WORDS, public_daemon
from tests.web.whole import Whole

pytestmark = pytest.mark.integration_test

# Names of the formats, not places.
NAMESPACE = "http://www.w3.org/"
PATHS = (
    "/status",
    "/status/incidents.atom",
    "/badge/1/state.svg",
    "/badge/2/state.svg",
    "/badge/2/uptime.svg?span=90d",
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with public_daemon(tmp_path_factory.mktemp("public")) as running:
        yield running


def public(daemon: Whole, path: str, **options: Any) -> Any:
    return daemon.request("GET", path, role=None, **options)


def as_json(daemon: Whole) -> Any:
    answer = public(daemon, "/status", headers={"accept": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_everybody_sees_the_chosen_sites_and_no_other(daemon: Whole) -> None:
    shown = as_json(daemon)
    assert shown["title"] == TITLE
    assert [each["id"] for each in shown["sites"]] == [1, 2, 3, 4]
    assert [each["state"] for each in shown["sites"]][:3] == ["up", "down", "up"]
    assert shown["state"] == "down"
    # The others exist, for those who may see them.
    assert daemon.request("GET", "/job/6").status_code == 200
    assert public(daemon, "/job/6").status_code == 401


def test_no_answer_has_internals(daemon: Whole) -> None:
    wait_for(lambda: as_json(daemon)["incidents"], "an incident of site 2")
    answers = [public(daemon, path) for path in PATHS]
    answers.append(public(daemon, "/status", headers={"accept": "application/json"}))
    for answer in answers:
        assert answer.status_code == 200
        for word in WORDS:
            assert word not in answer.text.replace(NAMESPACE, ""), answer.url
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("job_id", [5, 6, 7, 999])
def test_other_sites_have_no_badge_and_look_like_none(daemon: Whole, job_id: int) -> None:
    for path in (f"/badge/{job_id}/state.svg", f"/badge/{job_id}/uptime.svg?span=7d"):
        answer = public(daemon, path)
        assert answer.status_code == 404
        assert answer.json()["detail"] == f"there is no public site {job_id}"
        assert SECRET not in answer.text


def test_the_past_is_reckoned_by_time(daemon: Whole) -> None:
    history = as_json(daemon)["sites"][0]["history"]
    assert len(history["days"]) == 90
    # Three hours of the last day, and one more long ago.
    assert history["uptime"]["24h"] == pytest.approx(1 - 3 / 24, abs=0.01)
    assert history["uptime"]["7d"] == pytest.approx(1 - 3 / 168, abs=0.001)
    assert history["uptime"]["90d"] == pytest.approx(1 - 4 / (80 * 24), abs=0.001)
    assert "98.2" in public(daemon, "/badge/1/uptime.svg?span=7d").text


def test_planned_maintenance_is_announced_without_its_name(daemon: Whole) -> None:
    (planned,) = as_json(daemon)["maintenance"]
    assert planned["names"] == ["Submission portal"]
    assert not planned["under_way"]


def test_a_silence_of_a_site_is_maintenance(daemon: Whole) -> None:
    body = {"for": 600, "match": {"jobs": [2, 6]}, "comment": "secret reason"}
    silence = daemon.request("POST", "/silence", json=body)
    assert silence.status_code == 201
    wait_for(lambda: as_json(daemon)["state"] == "maintenance", "maintenance")
    assert public(daemon, "/badge/2/state.svg").text.count("maintenance") == 3
    assert "secret" not in public(daemon, "/status").text
    daemon.request("DELETE", f"/silence/{silence.json()['id']}")
    wait_for(lambda: as_json(daemon)["state"] == "down", "down again")


def test_the_feed_has_the_incidents(daemon: Whole) -> None:
    wait_for(lambda: as_json(daemon)["incidents"], "an incident of site 2")
    answer = public(daemon, "/status/incidents.atom")
    assert answer.headers["content-type"].startswith("application/atom+xml")
    feed = ET.fromstring(answer.content)
    titles = [each.text for each in feed.iter("{http://www.w3.org/2005/Atom}title")]
    assert titles[0] == TITLE
    assert any("is down" in (title or "") for title in titles)


def test_a_crowd_gets_one_reckoning_and_may_keep_it(daemon: Whole) -> None:
    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(lambda _: public(daemon, "/status"), range(100)))
    assert {answer.status_code for answer in answers} == {200}
    # Of each status there is one page for all.
    assert len({answer.text for answer in answers}) <= 3
    (first, *_) = answers
    assert first.headers["cache-control"] == "public, max-age=10"
    assert first.headers["content-encoding"] == "gzip"
    badge = public(daemon, "/badge/1/state.svg")
    again = public(daemon, "/badge/1/state.svg", headers={"if-none-match": badge.headers["etag"]})
    assert again.status_code == 304
    assert badge.headers["cross-origin-resource-policy"] == "cross-origin"


def test_other_answers_stay_with_their_own_origin(daemon: Whole) -> None:
    for path in ("/status", "/status/incidents.atom", "/healthz"):
        answer = public(daemon, path)
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_nothing_can_be_changed_here(daemon: Whole) -> None:
    for path in PATHS:
        assert daemon.request("POST", path, role=None).status_code == 405


def test_a_reload_chooses_other_sites_and_turns_the_page_off(daemon: Whole) -> None:
    def reload(page: dict[str, Any] | None) -> None:
        config = yaml.safe_load(daemon.daemon.config_file.read_text())
        config["api"]["status_page"] = page
        daemon.daemon.write_config(config)
        daemon.daemon.process.send_signal(signal.SIGHUP)

    before = yaml.safe_load(daemon.daemon.config_file.read_text())["api"]["status_page"]
    try:
        reload({"title": "Others", "match": {"tags": ["internal"]}})
        wait_for(lambda: as_json(daemon)["title"] == "Others", "the new title")
        assert [each["id"] for each in as_json(daemon)["sites"]] == [6]
        assert public(daemon, "/badge/1/state.svg").status_code == 404
        reload(None)
        wait_for(lambda: public(daemon, "/status").status_code == 404, "no page")
        assert "api.status_page" in public(daemon, "/status").json()["detail"]
        assert public(daemon, "/badge/6/state.svg").status_code == 404
    finally:
        reload(before)
        wait_for(lambda: public(daemon, "/status").status_code == 200, "the page again")
