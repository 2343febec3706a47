"""Sites of Uptime Kuma, Gatus and Prometheus are looked at, and then added; that can be undone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.commands.test_job_import import GATUS, KUMA, PROMETHEUS
from tests.waiting import wait_for
from tests.web.conftest import LogIn
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        yield running


def test_a_file_is_reported_line_by_line_then_added_and_taken_back(
    daemon: Whole, log_in: LogIn
) -> None:
    page = log_in(viewport={"width": 360, "height": 800})
    page.goto(f"{daemon.url}/#/sites")
    page.get_by_role("link", name="Import").click()
    upload = page.get_by_label("A backup of Uptime Kuma")
    upload.set_input_files({"name": "x.yml", "mimeType": "text/yaml", "buffer": b"a: [1"})
    page.get_by_text("x.yml cannot be imported: body:2").wait_for()
    upload.set_input_files({"name": "g.yml", "mimeType": "", "buffer": GATUS.encode()})
    page.get_by_text("5 sites will be added; 11 things are not taken.").wait_for()
    rows = page.locator("tbody tr")
    assert rows.count() == 10
    assert "RESPONSE_TIME" in rows.nth(0).inner_text()
    assert "ssh:// has no kind of check" in rows.nth(3).inner_text()
    assert daemon.get("/job")["items"] == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0

    page.get_by_role("button", name="Add 5 sites").click()
    page.get_by_text("5 sites are added; 11 things are not taken.").wait_for()
    found = daemon.get("/job")["items"]
    assert [each["kind"] for each in found] == ["http", "dns", "ping", "http", "heartbeat"]
    assert found[0]["tags"] == ["web"]
    assert rows.nth(0).get_by_role("link").get_attribute("href") == f"#/sites/{found[0]['id']}"
    page.get_by_role("button", name="Undo").click()
    wait_for(lambda: daemon.get("/job")["items"] == [], "no site left")


def test_a_file_that_is_imported_again_adds_only_what_is_new(daemon: Whole) -> None:
    def take(data: object, query: str = "?save=true") -> dict[str, object]:
        answer = daemon.request("POST", f"/job/import{query}", data=json.dumps(data).encode())
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    assert take(PROMETHEUS, "")["jobs"] == 5
    assert take(PROMETHEUS)["jobs"] == 5
    again = take(PROMETHEUS)
    assert again["jobs"] == 0
    first = again["items"][0]  # type: ignore[index]
    job = daemon.get("/job")["items"][0]
    assert first["not_taken"] == [f"job {job['id']} is the same"]
    kuma = take(KUMA)
    assert kuma["jobs"] == 4
    assert len({each["id"] for each in daemon.get("/job?limit=100")["items"]}) == 9


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not a target list"),
        (b"\xff\xfe", "body:"),
        (b"[" * 100_000, "body:"),
        (b"a: &a [*a]", "body:"),
        (b'{"monitorList": [1, {"type": 7}, {}]}', None),
        (b'{"endpoints": {}}', "not a target list"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    daemon: Whole, raw: bytes, said: str | None
) -> None:
    answer = daemon.request("POST", "/job/import", data=raw)
    assert answer.status_code == (200 if said is None else 422), answer.text
    if said is None:
        assert all(each["not_taken"] for each in answer.json()["items"])
    else:
        assert said in answer.json()["detail"]
        assert "\n" not in answer.json()["detail"]


def test_only_admins_import_and_only_into_the_database(daemon: Whole) -> None:
    answer = daemon.request("POST", "/job/import", role="reader", data=b"[]")
    assert answer.status_code == 403
    with whole(probes={"jobs": []}) as running:
        answer = running.request("POST", "/job/import", data=b"[]")
        assert answer.status_code == 409
        assert "config" in answer.json()["detail"]
