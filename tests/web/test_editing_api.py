"""What forms need of the API: the kinds' keys, those of a job without secrets, copying, undoing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from monitor.probes.checks import KINDS
from tests.web.whole import Whole, whole

pytestmark = pytest.mark.integration_test

SECRET = "hunter2"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        body = {
            "name": "secretive",
            "url": f"http://user:{SECRET}@127.0.0.1:9/",
            "headers": {"authorization": SECRET},
            "interval": 3600,
            "tags": ["a"],
        }
        assert running.request("POST", "/job", json=body).status_code == 201
        yield running


def test_every_kind_says_what_each_of_its_keys_is(daemon: Whole) -> None:
    found = daemon.get("/job-kind", role="reader")
    assert found["source"] == "database"
    assert found["changeable"]
    assert {each["kind"] for each in found["kinds"]} == {*KINDS}
    assert found["kinds"][0]["kind"] == "http"
    for kind in found["kinds"]:
        properties = kind["schema"]["properties"]
        assert {*kind["common"]} <= {*properties}
        for key, schema in properties.items():
            assert key == "kind" or schema["description"], f"{kind['kind']}: {key}"
    http = found["kinds"][0]["schema"]
    assert http["required"] == ["url"]
    assert http["properties"]["headers"]["writeOnly"]
    assert http["properties"]["expected_status"]["default"] == ["200-299"]


def test_the_keys_of_a_job_have_no_secrets_and_say_which_are_hidden(daemon: Whole) -> None:
    answer = daemon.request("GET", "/job/1/keys")
    assert SECRET not in answer.text
    assert sorted(answer.json()["hidden"]) == ["headers", "url"]
    assert answer.json()["keys"]["tags"] == ["a"]
    assert daemon.request("GET", "/job/1/keys", role="reader").status_code == 403
    assert daemon.request("GET", "/job/77/keys").status_code == 404


def test_a_copy_differs_in_the_given_keys_alone(daemon: Whole) -> None:
    made = daemon.request("POST", "/job/1/copy", json={"name": "copy"})
    assert made.status_code == 201
    copy = made.json()["id"]
    assert made.headers["location"] == f"/job/{copy}"
    mine, other = daemon.get("/job/1/keys"), daemon.get(f"/job/{copy}/keys")
    assert other["hidden"] == mine["hidden"]
    assert other["keys"] == {**mine["keys"], "id": copy, "name": "copy"}
    assert daemon.request("POST", "/job/1/copy", json={"id": 1000}).status_code == 422
    assert daemon.request("POST", "/job/77/copy", json={}).status_code == 404


def test_a_change_is_taken_back_with_its_secrets_and_so_is_that(daemon: Whole) -> None:
    before = daemon.get("/job/1/keys")
    changed = {"headers": {}, "url": "http://127.0.0.1:9/", "interval": 60}
    assert daemon.request("PATCH", "/job/1", json=changed).status_code == 200
    assert daemon.get("/job/1/keys")["hidden"] == []
    assert daemon.request("POST", "/job/1/undo").status_code == 200
    assert daemon.get("/job/1/keys") == before
    # Once more undoes the undoing.
    assert daemon.request("POST", "/job/1/undo").json()["interval"] == 60
    assert daemon.request("POST", "/job/1/undo").json()["interval"] == 3600


def test_a_deleted_job_comes_back_under_its_id(daemon: Whole) -> None:
    before = daemon.get("/job/1/keys")
    assert daemon.request("DELETE", "/job/1").status_code == 204
    assert daemon.request("POST", "/job/1/undo").json()["id"] == 1
    assert daemon.get("/job/1/keys") == before


def test_without_a_change_there_is_nothing_to_take_back(daemon: Whole) -> None:
    made = daemon.request("POST", "/job", json={"url": "http://127.0.0.1:9/"}).json()["id"]
    answer = daemon.request("POST", f"/job/{made}/undo")
    assert answer.status_code == 409
    assert "no change" in answer.json()["detail"]
    assert daemon.request("POST", f"/job/{made}/undo", role="reader").status_code == 403


def test_jobs_of_the_config_cannot_be_changed_here_and_the_kinds_say_so() -> None:
    jobs = [{"id": 1, "url": "http://127.0.0.1:9/", "interval": 3600}]
    with whole(probes={"jobs": jobs}) as running:
        found = running.get("/job-kind")
        assert (found["source"], found["changeable"]) == ("config", False)
        for path in ("/job/1/copy", "/job/1/undo"):
            answer = running.request("POST", path, json={})
            assert answer.status_code == 409
            assert "config" in answer.json()["detail"]
