"""Each row of the API, of a daemon that runs, with tokens."""

from __future__ import annotations

import base64
import codecs
import contextlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.relay.broker import Broker
from tests.waiting import LIMIT_S, wait_for
from tests.web.whole import Whole, whole

METRICS = """
part_up relay_clients relay_channels relay_history_bytes relay_messages
relay_deliveries relay_rejected relay_disconnects probe_results probe_duration_seconds
probe_lag_seconds probe_missed bus_published bus_spooled_messages consumer_lag
consumer_rejected log_entries log_rejected log_purged config_last_reload_successful
"""

pytestmark = pytest.mark.integration_test


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        yield running


@pytest.fixture
def job(daemon: Whole) -> Iterator[int]:
    """A job in the database that is up."""
    created = daemon.request("POST", "/job", json={"name": "mock", **daemon.mock()})
    assert created.status_code == 201, created.text
    job_id = int(created.json()["id"])
    assert created.headers["location"] == f"/job/{job_id}"
    daemon.wait_for_state(job_id, "up")
    yield job_id
    daemon.request("DELETE", f"/job/{job_id}")


def problem(answer: requests.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["detail"]
    return body


@pytest.mark.parametrize(
    ("method", "path", "part"),
    [
        ("GET", "/incident", "alerts"),
        ("POST", "/incident/abc/acknowledge", "alerts"),
        ("POST", "/alert/test", "alerts"),
        ("DELETE", "/silence/abc", "alerts"),
        ("GET", "/model-update", "cluster"),
    ],
)
def test_a_call_of_a_part_that_is_off_names_the_part_and_its_section(
    daemon: Whole, method: str, path: str, part: str
) -> None:
    detail = problem(daemon.request(method, path), 404)["detail"]
    assert detail == f"the part {part} is off; a section {part} in the config turns it on"


def test_the_page_for_people_and_json_for_machines(daemon: Whole) -> None:
    page = daemon.request("GET", "/", role=None)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    asked = {"accept": "application/json"}
    overview = daemon.get("/", headers=asked)
    assert overview["name"] == "recodex-monitor"
    assert overview["parts"]["relay"]["health"] == "ok"
    problem(daemon.request("GET", "/", role=None, headers=asked), 401)


@pytest.mark.parametrize(
    "path", ["/job", "/job/1", "/channel", "/log", "/metrics", "/docs", "/openapi.json", "/uptime"]
)
def test_nobody_gets_anything_and_a_sender_neither(daemon: Whole, path: str) -> None:
    problem(daemon.request("GET", path, role=None), 401)
    problem(daemon.request("GET", path, role="sender"), 403)


def test_a_job_from_its_creation_to_its_end(daemon: Whole, job: int) -> None:
    entry = daemon.get(f"/job/{job}")
    assert entry["name"] == "mock"
    assert entry["last"]["status"] == 200
    assert entry["next_run"] > entry["last"]["scheduled_at"]
    assert daemon.tokens["reader"] not in json.dumps(entry)
    assert [each["id"] for each in daemon.get("/job")["items"]] == [job]

    changed = {"name": "ill", **daemon.mock("status=500&delay=0&size=0")}
    assert daemon.request("PUT", f"/job/{job}", json=changed).status_code == 200
    down = daemon.wait_for_state(job, "down")
    assert down["name"] == "ill"
    assert down["last"]["error"].startswith("bad-status")
    assert down["since"] >= entry["since"]

    assert daemon.request("DELETE", f"/job/{job}").status_code == 204
    problem(daemon.request("GET", f"/job/{job}"), 404)
    problem(daemon.request("DELETE", f"/job/{job}"), 404)
    problem(daemon.request("PUT", f"/job/{job}", json=changed), 404)


def test_stop_and_start_and_409_where_it_already_is(daemon: Whole, job: int) -> None:
    problem(daemon.request("POST", f"/job/{job}/start"), 409)
    stopped = daemon.request("POST", f"/job/{job}/stop")
    assert stopped.status_code == 200
    assert stopped.json()["state"] == "stopped"
    assert stopped.json()["next_run"] is None
    assert stopped.json()["since"] == pytest.approx(time.time(), abs=60)
    problem(daemon.request("POST", f"/job/{job}/stop"), 409)
    started = daemon.request("POST", f"/job/{job}/start")
    assert started.json()["state"] == "up"
    assert started.json()["next_run"] is not None
    for action in ("start", "stop"):
        problem(daemon.request("POST", f"/job/999/{action}"), 404)
        problem(daemon.request("POST", f"/job/{job}/{action}", role="reader"), 403)
        assert daemon.request("GET", f"/job/{job}/{action}").status_code == 405


def test_a_job_that_is_stopped_until_a_time_starts_again_by_itself(daemon: Whole, job: int) -> None:
    until = time.time() + 1
    paused = daemon.request("POST", f"/job/{job}/stop?until={until}")
    assert paused.json()["state"] == "stopped"
    assert paused.json()["stopped_until"] == pytest.approx(until)
    checked = daemon.wait_for_state(job, "up")
    assert checked["stopped_until"] is None
    problem(daemon.request("POST", f"/job/{job}/start"), 409)
    wait_for(
        lambda: daemon.get(f"/job/{job}")["last"]["checked_at"] >= until, "a check after the pause"
    )
    for wrong in ("1", "nan", "soon"):
        problem(daemon.request("POST", f"/job/{job}/stop?until={wrong}"), 422)
    assert daemon.get(f"/job/{job}")["state"] == "up"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "body: the JSON ends too early"),
        (b"\xff", "body: not JSON"),
        (b"[" * 100_000, "body: "),
        ([], "body: expected an object, not a list"),
        ({}, "body: the key url is missing"),
        ({"url": 5}, "body.url: expected a text, not a whole number"),
        ({"url": "gopher://x"}, "http://"),
        ({"url": "http://x/", "interval": 0}, "body.interval: expected a number, at least 0.1"),
        ({"url": "http://x/", "intervall": 1}, "did you mean interval?"),
        ({"url": "http://x/", "body_regexp": "("}, "body_regexp"),
        ({"url": "http://x/", "id": 0}, "id"),
        (b'{"url": "http://x/", "url": "http://y/"}', "body.url: duplicate key"),
        (
            b'{"url": "http://x/", "headers": {"A": "1", "A": "2"}}',
            "body.headers.A: duplicate key",
        ),
        ({"url": "http://x/", "name": "a\0b"}, "name"),
        (
            {"kind": "tcp", "url": "tcp://x:1", "method": "PUT"},
            "body.method: unknown key for kind tcp; known by http",
        ),
        ({"kind": "websocket", "url": "ws://token@x/"}, "body.url: has a user without"),
        ({"kind": "nothing", "url": "http://x/"}, "body.kind: unknown kind 'nothing'"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_whole_and_the_key_is_named(
    daemon: Whole, body: Any, said: str
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    before = daemon.get("/job")["items"]
    assert said in problem(daemon.request("POST", "/job", data=data), 422)["detail"]
    assert daemon.get("/job")["items"] == before


@pytest.mark.parametrize("path", ["/job", "/job/import", "/session", "/log"])
def test_a_byte_order_mark_before_a_body_changes_nothing(daemon: Whole, path: str) -> None:
    data = json.dumps(
        {
            "/job": daemon.mock(),
            "/job/import": [{"targets": ["http://x/"]}],
            "/session": {"token": daemon.tokens["admin"]},
            "/log": {"level": "info", "time": time.time(), "sender": "sender", "message": "m"},
        }[path]
    ).encode()
    role = "sender" if path == "/log" else "admin"
    plain, marked = (
        daemon.request("POST", path, role=role, data=mark + data) for mark in (b"", codecs.BOM_UTF8)
    )
    assert plain.ok, plain.text
    assert marked.status_code == plain.status_code
    if path == "/job":
        for made in (plain, marked):
            assert daemon.request("DELETE", f"/job/{made.json()['id']}").ok


@pytest.mark.parametrize("other", ["{}.0", "+{}", " {}", "0_{}", "{}%0a"])
def test_a_job_has_one_path(daemon: Whole, job: int, other: str) -> None:
    assert daemon.get(f"/job/{job}")["id"] == job
    said = problem(daemon.request("GET", f"/job/{other.format(job)}"), 422)["detail"]
    assert "in digits" in said


def test_an_id_can_be_given_once_and_never_changes(daemon: Whole, job: int) -> None:
    problem(daemon.request("POST", "/job", json={"id": job, **daemon.mock()}), 409)
    problem(daemon.request("PUT", f"/job/{job}", json={"id": job + 1, **daemon.mock()}), 422)
    other = daemon.request("POST", "/job", json={"id": 77, **daemon.mock()})
    assert other.json()["id"] == 77
    assert daemon.request("DELETE", "/job/77").status_code == 204


def test_no_job_gets_the_id_of_a_former_one_with_results(daemon: Whole) -> None:
    former = daemon.request("POST", "/job", json=daemon.mock()).json()["id"]
    other = daemon.request("POST", "/job", json={**daemon.mock(), "depends_on": [former]}).json()
    wait_for(lambda: daemon.get(f"/job/{former}/result")["items"], "a result")
    assert daemon.request("DELETE", f"/job/{former}").status_code == 204
    assert daemon.get(f"/job/{former}/result")["items"]
    again = daemon.request("POST", "/job", json={"id": former, **daemon.mock()})
    assert f"results of a former job {former}" in problem(again, 409)["detail"]
    # What depended on it can be changed, all the same, and undoing gives the id back.
    assert daemon.request("PATCH", f"/job/{other['id']}", json={"name": "x"}).status_code == 200
    assert daemon.request("POST", f"/job/{former}/undo").status_code == 200
    assert daemon.request("POST", f"/job/{former}/stop").status_code == 200
    # Until the probes have read the table again, they still check it.
    check = f"/job/{former}/check"
    wait_for(lambda: daemon.request("POST", check).status_code != 200, "the probes to know it")
    stopped = daemon.request("POST", check)
    assert problem(stopped, 409)["detail"] == f"job {former} is stopped"
    for job_id in (former, other["id"]):
        assert daemon.request("DELETE", f"/job/{job_id}").status_code == 204


def test_a_job_with_the_greatest_id_leaves_ids_for_others(daemon: Whole, job: int) -> None:
    greatest = daemon.request("POST", "/job", json={"id": 2**63 - 1, **daemon.mock()})
    assert greatest.status_code == 201
    created = daemon.request("POST", "/job", json=daemon.mock())
    assert created.status_code == 201, created.text
    assert job < created.json()["id"] < 2**63 - 1
    for job_id in (2**63 - 1, created.json()["id"]):
        assert daemon.request("DELETE", f"/job/{job_id}").status_code == 204


def test_a_job_that_takes_long_to_check_holds_nobody_up(daemon: Whole, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    slow = "(?i)[" + "".join(f"{chr(256 + n)}-\U0010ffff" for n in range(1500)) + "]"
    for fields, word in (
        ({"ca_file": str(fifo)}, "a pipe"),
        ({"ca_file": "/proc/self/fd/5"}, "ca_file"),
        ({"ca_file": "/dev/zero"}, "a device"),
        ({"body_regexp": slow}, "takes more than 2 s to compile"),
        ({"body_regexp": "x" * 8193}, "longer than 8192 characters"),
    ):
        body = {"url": "https://localhost/", **fields}
        with ThreadPoolExecutor(1) as pool:
            refused = pool.submit(daemon.request, "POST", "/job", json=body)
            others = 0
            while not refused.done():
                assert daemon.request("GET", "/healthz").status_code == 200
                others += 1
        assert word in problem(refused.result(), 422)["detail"]
        # A loop that compiles answers nobody else.
        assert others > 2 or fields.get("body_regexp") != slow


def test_results_come_in_pages_newest_first_each_once(daemon: Whole, job: int) -> None:
    def enough() -> bool:
        return len(daemon.get(f"/job/{job}/result")["items"]) >= 5

    wait_for(enough, "five results in the database")
    # Of later ones some may be on their way into the database.
    until = daemon.get(f"/job/{job}/result")["items"][0]["scheduled_at"] + 0.001
    whole_list = daemon.get(f"/job/{job}/result?until={until}")["items"]
    instants = [each["scheduled_at"] for each in whole_list]
    assert instants == sorted(set(instants), reverse=True)
    paged, cursor = [], ""
    while True:
        page = daemon.get(f"/job/{job}/result?limit=2&until={until}{cursor}")
        paged += page["items"]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert paged == whole_list
    since = instants[1]
    found = daemon.get(f"/job/{job}/result?since={since}&until={until}")["items"]
    assert [each["scheduled_at"] for each in found] == instants[:2]
    problem(daemon.request("GET", f"/job/{job}/result?cursor=nonsense"), 422)


@pytest.mark.parametrize("what", ["result", "metric", "uptime"])
def test_an_id_that_nothing_ever_had_is_404(daemon: Whole, what: str) -> None:
    new = {**daemon.mock(), "active": False}
    job = daemon.request("POST", "/job", json=new).json()["id"]
    assert daemon.get(f"/job/{job}/{what}")
    assert daemon.request("DELETE", f"/job/{job}").status_code == 204
    detail = problem(daemon.request("GET", f"/job/{job}/{what}"), 404)["detail"]
    assert detail == f"there is no job {job}"


def test_metrics_are_what_the_results_say_and_gaps_are_gaps(daemon: Whole, job: int) -> None:
    def enough() -> Any:
        items = daemon.get(f"/job/{job}/metric?granularity=hour")["items"]
        return items if items and sum(each["checks"] for each in items) >= 4 else None

    items = wait_for(enough, "four checks in the metrics")
    for window in items:
        assert window["width"] == 3600
        assert window["start"] % 3600 == 0
        assert window["rt_min"] <= window["p50"] <= window["p95"] <= window["p99"]
        assert window["p99"] <= window["rt_max"]
        assert sum(window["status"].values()) == window["checks"]
    (uptime,) = daemon.get(f"/uptime?job={job}&granularity=hour&windows=5")["items"]
    assert len(uptime["checks"]) == 5
    assert uptime["checks"][0] == 0
    assert uptime["checks"][-1] + uptime["checks"][-2] >= 4
    problem(daemon.request("GET", f"/job/{job}/metric?granularity=week"), 422)


def test_what_a_token_shows_is_kept_by_nobody_but_its_client(daemon: Whole, job: int) -> None:
    shown = ["/job", f"/job/{job}/result", "/channel", "/docs", "/openapi.json", "/log", "/metrics"]
    for path in shown:
        kept = daemon.request("GET", path).headers["cache-control"]
        assert kept in ("private, no-cache", "no-store"), path
    for path in ("/job", "/nothing", "/healthz"):
        assert daemon.request("GET", path, role=None).headers["cache-control"] == "no-store"
    # The page's own files are public.
    page = daemon.request("GET", "/static/app.js", role=None)
    assert page.headers["cache-control"] == "no-cache"
    etag = {"if-none-match": page.headers["etag"]}
    assert daemon.request("GET", "/static/app.js", role=None, headers=etag).status_code == 304
    # Nor does a validator open what a token is needed for.
    problem(daemon.request("GET", "/job", role=None, headers={"if-none-match": "*"}), 401)


@pytest.mark.parametrize("place", [[2**63], [-1], [10**30], ["x"], [1.5e308], [1, 2], {}])
def test_a_cursor_that_no_answer_gave_is_refused(daemon: Whole, job: int, place: Any) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")
    for path in ("/job", f"/job/{job}/result", f"/job/{job}/metric"):
        assert "cursor" in problem(daemon.request("GET", f"{path}?cursor={cursor}"), 422)["detail"]


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=zzz",
        ";;;,,,=",
    ],
)
def test_metrics_are_given_also_to_who_asks_for_a_format_that_is_none(
    daemon: Whole, accept: str
) -> None:
    answer = daemon.request("GET", "/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert "recodex_monitor_ready" in answer.text


def test_jobs_are_listed_by_their_state(daemon: Whole, job: int) -> None:
    assert daemon.request("POST", "/job", json={"id": 900, **daemon.mock()}).status_code == 201
    assert daemon.request("POST", "/job/900/stop").status_code == 200

    def ids(query: str) -> list[int]:
        return [entry["id"] for entry in daemon.get(f"/job{query}")["items"]]

    assert ids("?state=stopped") == [900]
    assert job in ids("?state=up")
    assert 900 not in ids("?state=up")
    first = daemon.get("/job?state=stopped&limit=1")
    assert first["cursor"] is None
    assert daemon.request("DELETE", "/job/900").status_code == 204


@pytest.mark.parametrize(
    ("path", "named", "words"),
    [
        ("/job?state=broken", "query.state", ["up", "down", "unknown", "stopped", "inactive"]),
        ("/job?stat=up", "query.stat", ["did you mean state"]),
        ("/job/1?state=up", "query.state", ["none here"]),
        ("/channel?name=x", "query.name", ["limit, cursor"]),
        ("/log?level=loud", "level", ["debug", "critical"]),
        ("/log?levle=info", "query.levle", ["did you mean level"]),
        ("/log?limit=10001", "query.limit", ["10000"]),
        ("/job/x", "path.job_id", ["integer"]),
        ("/job/1/result?since=1e300", "query.since", ["253402300800"]),
        (f"/uptime?{'&'.join(['job=1'] * 201)}", "query.job", ["200"]),
    ],
)
def test_a_parameter_or_word_that_is_not_known_is_refused_and_named(
    daemon: Whole, path: str, named: str, words: list[str]
) -> None:
    detail = problem(daemon.request("GET", path), 422)["detail"]
    assert detail.startswith(f"{named}: ")
    assert all(word in detail for word in words), detail


def test_a_list_is_not_sent_to_who_has_it(daemon: Whole) -> None:
    def list_unless(etag: str) -> requests.Response:
        return daemon.request("GET", "/job", headers={"if-none-match": etag})

    def kept() -> str | None:
        etag = daemon.request("GET", "/job").headers["etag"]
        return etag if list_unless(etag).status_code == 304 else None

    # It changes as the daemon takes up its jobs.
    etag = wait_for(kept, "a list that stays as it is")
    assert list_unless(etag).content == b""
    created = daemon.request("POST", "/job", json={"active": False, **daemon.mock()})
    assert created.status_code == 201, created.text
    assert list_unless(etag).status_code == 200
    daemon.request("DELETE", f"/job/{created.json()['id']}")


def test_channels_are_for_admins(daemon: Whole) -> None:
    port = daemon.config["zeromq_uri"][1]
    with contextlib.closing(Broker(f"tcp://127.0.0.1:{port}")) as broker:
        for name in ("c-1", "c-2", "c-3"):
            broker.send(name, "STARTED")
            broker.task(name, 1)
        broker.send("c-1", "FINISHED")
        channels = wait_for(
            lambda: (
                found
                if len(found := daemon.get("/channel")["items"]) == 3 and found[0]["ended"]
                else None
            ),
            "three channels",
        )
    assert [each["name"] for each in channels] == ["c-1", "c-2", "c-3"]
    assert [each["messages"] for each in channels] == [3, 2, 2]
    first = daemon.get("/channel?limit=2")
    rest = daemon.get(f"/channel?limit=2&cursor={first['cursor']}")
    assert [each["name"] for each in rest["items"]] == ["c-3"]
    assert rest["cursor"] is None
    problem(daemon.request("GET", "/channel", role="reader"), 403)


def test_topics_and_their_messages_are_for_admins(daemon: Whole, job: int) -> None:
    daemon.wait_for_state(job, "up")
    # Published results are in the spool within half a second.
    (topic,) = wait_for(lambda: daemon.get("/topic")["items"], "a topic")
    assert topic["name"] == "website_availability"
    (extent,) = topic["partitions"]
    assert extent["partition"] == 0
    assert extent["first_offset"] < extent["next_offset"]
    path = f"/topic/{topic['name']}"
    (newest,) = daemon.get(path, params={"limit": 1})["items"]
    assert newest["headers"]["ce_type"] == "org.recodex.monitor.result"
    assert newest["value"]["url"].startswith("http://")
    assert newest["timestamp"] > 1.7e9
    # From the first on, page by page, each once.
    asked: dict[str, Any] = {"offset": extent["first_offset"], "limit": 2}
    offsets: list[int] = []
    while newest["offset"] not in offsets:
        page = daemon.get(path, params=asked)
        offsets += [item["offset"] for item in page["items"]]
        asked = {"cursor": page["cursor"], "limit": 2}
    assert offsets == sorted(set(offsets))
    assert offsets[0] == extent["first_offset"]
    problem(daemon.request("GET", "/topic/nope"), 404)
    problem(daemon.request("GET", path, params={"partition": 1}), 404)
    for each in ("/topic", path):
        problem(daemon.request("GET", each, role="reader"), 403)


def test_logs_are_as_the_action_gives_them(daemon: Whole) -> None:
    found = daemon.get("/log", role="reader", params={"sender": "nobody"})
    assert found["logs"] == []
    assert daemon.get("/notification")["notifications"] == []


def test_the_mock_site_answers_as_it_is_asked(daemon: Whole) -> None:
    answer = daemon.request("GET", "/website_mock?status=418&delay=0&size=1234")
    assert answer.status_code == 418
    assert len(answer.content) == 1234
    assert daemon.request("GET", "/website_mock?status=204&delay=0").content == b""
    problem(daemon.request("GET", "/website_mock?delay=600"), 422)


def test_metrics_have_the_names_that_dashboards_know(daemon: Whole, job: int) -> None:
    del job
    answer = daemon.request("GET", "/metrics", role="reader")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    prefix = "recodex_monitor_"
    for name in METRICS.split():
        assert prefix + name in families, name
    up = families[f"{prefix}part_up"].samples
    assert {sample.labels["part"]: sample.value for sample in up}["probes"] == 1.0
    buckets = families[f"{prefix}probe_duration_seconds"].samples
    assert buckets[-1].name.endswith(("_sum", "_count"))
    openmetrics = {"accept": "application/openmetrics-text; version=1.0.0"}
    text = daemon.request("GET", "/metrics", headers=openmetrics).text
    assert text.endswith("# EOF\n")


def test_head_is_answered_as_get_without_a_body(daemon: Whole) -> None:
    answer = daemon.request("HEAD", "/healthz", role=None)
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) > 0


def test_the_documentation_names_every_call_and_no_other_host(daemon: Whole) -> None:
    document = daemon.get("/openapi.json")
    page = daemon.request("GET", "/docs").text
    for path in document["paths"]:
        assert path in page
    assert not any(each in page for each in ("src=", 'href="http', 'href="//', "@import"))


def test_login_keeps_the_token_where_scripts_cannot_read_it(daemon: Whole) -> None:
    page = requests.Session()
    page.headers["origin"] = daemon.url
    assert page.get(f"{daemon.url}/session", timeout=LIMIT_S).json()["role"] is None
    wrong = page.post(f"{daemon.url}/session", json={"token": "rmt_wrong"}, timeout=LIMIT_S)
    problem(wrong, 401)
    sender = {"token": daemon.tokens["sender"]}
    problem(page.post(f"{daemon.url}/session", json=sender, timeout=LIMIT_S), 403)
    token = {"token": daemon.tokens["admin"]}
    answer = page.post(f"{daemon.url}/session", json=token, timeout=LIMIT_S)
    assert answer.json()["role"] == "admin"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert page.get(f"{daemon.url}/job", timeout=LIMIT_S).status_code == 200
    foreign = {"origin": "https://evil.example"}
    problem(page.post(f"{daemon.url}/job/1/stop", headers=foreign, timeout=LIMIT_S), 403)
    problem(page.post(f"{daemon.url}/job/1/stop", headers={"origin": ""}, timeout=LIMIT_S), 403)
    assert page.delete(f"{daemon.url}/session", timeout=LIMIT_S).status_code == 204
    problem(page.get(f"{daemon.url}/job", timeout=LIMIT_S), 401)


def test_each_change_leaves_a_line_that_says_who_and_so_does_each_try(daemon: Whole) -> None:
    daemon.request("POST", "/job", json={"id": 4242, **daemon.mock()})
    daemon.request("POST", "/job/4242/stop", role="reader")
    daemon.request("DELETE", "/job/4242", role=None)
    daemon.request("DELETE", "/job/4242")
    for line in (
        "POST /job by admin from 127.0.0.1: 201",
        "POST /job/4242/stop by reader from 127.0.0.1: 403",
        "DELETE /job/4242 by nobody from 127.0.0.1: 401",
        "DELETE /job/4242 by admin from 127.0.0.1: 204",
    ):
        daemon.daemon.wait_log(f"audit: {line}")


def test_no_path_leads_out_of_the_static_files(daemon: Whole) -> None:
    assert daemon.request("GET", "/static/app.js", role=None).status_code == 200
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/"):
        assert daemon.request("GET", path).status_code == 404


def test_tables_are_dropped_only_by_an_admin_who_says_so(daemon: Whole, job: int) -> None:
    problem(daemon.request("POST", "/db/init", role="admin"), 422)
    problem(daemon.request("POST", "/db/init?confirm=yes"), 422)
    problem(daemon.request("POST", "/db/init?confirm=drop&dry_run=1"), 422)
    problem(daemon.request("POST", "/db/init?confirm=drop", role="reader"), 403)
    assert daemon.get(f"/job/{job}")["state"] == "up"
    assert daemon.request("POST", "/db/init?confirm=drop").status_code == 200
    assert daemon.get(f"/job/{job}/result?until=1")["items"] == []
