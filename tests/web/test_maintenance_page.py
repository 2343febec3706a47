"""Maintenance is planned and ended, and receivers are tested, on the page and in the API."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from tests.ports import free_port
from tests.servers.browser import assert_usable
from tests.waiting import wait_for
from tests.web.conftest import LogIn
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.end_to_end

ZONE = "America/New_York"
PLAN = "/#/incidents/maintenance"


class Accepting(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Accepting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    alerts = {
        "receivers": [
            {"name": "on <call>", "webhook": f"http://127.0.0.1:{server.server_port}/"},
            {"name": "nobody", "webhook": f"http://127.0.0.1:{free_port()}/"},
        ],
        "rules": [{"name": "site down", "watch": "site", "receivers": ["on <call>"]}],
        "maintenance": [
            {"name": "nights", "from": "02:00", "until": "03:00", "match": {"tags": ["web"]}}
        ],
    }
    try:
        with whole(tokens=True, alerts=alerts) as running:
            for name, tags in (("portal", ["web"]), ("mail", ["web", "mail"])):
                body = {"name": name, "tags": tags, **running.mock(), "interval": 3600}
                assert running.request("POST", "/job", json=body).status_code == 201
            yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_maintenance_of_a_site_is_planned_undone_and_ended(daemon: Whole, log_in: LogIn) -> None:
    page = log_in(path=PLAN, timezone_id=ZONE)
    page.get_by_text("No maintenance is under way or planned.").wait_for()
    page.goto(f"{daemon.url}/#/sites/2")
    page.get_by_role("link", name="Plan maintenance").click()
    form = page.get_by_role("form", name="Plan maintenance")
    assert form.get_by_label("Chosen: sites").inner_text().startswith("mail")
    form.get_by_label("From").fill("2093-05-06T07:00")
    form.get_by_label("Until").fill("2093-05-06T06:00")
    form.get_by_label("What for").fill("a new disk")
    form.get_by_role("button", name="Plan maintenance").click()
    form.get_by_text("The end must be after the beginning").wait_for()
    form.get_by_label("Until").fill("2093-05-06T09:00")
    form.get_by_role("button", name="Plan maintenance").click()
    # Nobody plans that far ahead: the daemon says so.
    form.get_by_text("within a year").wait_for()

    day = datetime.fromtimestamp(time.time() + 5 * 86400, ZoneInfo(ZONE)).date()
    form.get_by_label("From").fill(f"{day}T07:00")
    form.get_by_label("Until").fill(f"{day}T09:00")
    form.get_by_role("button", name="Plan maintenance").click()
    row = page.get_by_label("Maintenance", exact=True).locator("li")
    row.get_by_text("a new disk").wait_for()
    assert "planned" in row.inner_text()
    (silence,) = daemon.get("/silence")["items"]
    begins = datetime(day.year, day.month, day.day, 7, tzinfo=ZoneInfo(ZONE)).timestamp()
    assert (silence["starts_at"], silence["until"]) == (begins, begins + 7200)
    assert silence["match"]["jobs"] == [2]
    row.get_by_role("button", name="Cancel").click()
    page.get_by_text("No maintenance is under way or planned.").wait_for()
    page.get_by_role("button", name="Undo").click()
    row.get_by_text("a new disk").wait_for()
    (again,) = daemon.get("/silence")["items"]
    assert (again["starts_at"], again["until"]) == (begins, begins + 7200)
    assert daemon.request("DELETE", f"/silence/{again['id']}").status_code == 204


def test_maintenance_of_a_tag_begins_now_and_is_chosen_by_keyboard(
    daemon: Whole, log_in: LogIn
) -> None:
    page = log_in(path=PLAN)
    form = page.get_by_role("form", name="Plan maintenance")
    form.get_by_label("Of", exact=True).select_option("sites with a tag")
    form.get_by_role("button", name="Plan maintenance").click()
    form.get_by_text("Choose a tag.").wait_for()
    page.keyboard.type("none such")
    page.keyboard.press("Enter")
    form.get_by_text("There is none of this name.").wait_for()
    page.keyboard.press("Control+a")
    page.keyboard.type("mai")
    page.keyboard.press("Enter")
    form.get_by_label("Without mail").wait_for()
    form.get_by_role("button", name="Plan maintenance").click()
    page.get_by_label("Maintenance", exact=True).get_by_text("sites tagged mail").wait_for()
    (silence,) = daemon.get("/silence")["items"]
    assert silence["match"]["tags"] == ["mail"]
    assert silence["starts_at"] <= time.time() < silence["until"]
    page.get_by_role("button", name="End now").click()
    page.get_by_text("The maintenance is ended.").wait_for()
    assert daemon.get("/silence")["items"] == []


def test_a_receiver_gets_a_test_and_what_it_says_is_shown(daemon: Whole, log_in: LogIn) -> None:
    page = log_in(path=PLAN)
    page.get_by_role("button", name="Send a test to on <call>").click()
    page.locator("li", has_text="on <call>").get_by_text("accepted", exact=True).wait_for()
    page.get_by_role("button", name="Send a test to nobody").click()
    page.locator("li", has_text="nobody").get_by_text("not accepted", exact=True).wait_for()


def test_the_windows_of_the_config_are_shown_with_their_next_time(daemon: Whole) -> None:
    (window,) = daemon.get("/maintenance", role="reader")["items"]
    assert window["name"] == "nights"
    assert window["match"]["tags"] == ["web"]
    begins = datetime.fromtimestamp(window["begins_at"], ZoneInfo("UTC"))
    assert (begins.hour, begins.minute) == (2, 0)
    assert window["ends_at"] - window["begins_at"] == 3600
    assert time.time() < window["ends_at"] < time.time() + 2 * 86400


@pytest.mark.parametrize(
    "body",
    [
        {"from": 5, "for": 60},
        {"from": time.time() + 500, "until": time.time() + 400},
        {"from": time.time() + 400 * 86400, "for": 60},
        {"from": "noon", "for": 60},
    ],
)
def test_a_silence_needs_a_start_that_makes_sense(daemon: Whole, body: dict[str, Any]) -> None:
    assert daemon.request("POST", "/silence", json=body).status_code == 422
    twice = b'{"for": 60, "match": {"tags": ["a"], "tags": ["b"]}}'
    assert daemon.request("POST", "/silence", data=twice).status_code == 422
    assert daemon.get("/silence")["items"] == []


def test_planned_maintenance_holds_nothing_back_before_it_begins(daemon: Whole) -> None:
    begins = time.time() + 600
    body = {"from": begins, "for": 60, "match": {"jobs": [1]}}
    made = daemon.request("POST", "/silence", json=body).json()
    assert (made["starts_at"], made["until"]) == (begins, begins + 60)
    gone = f"http://127.0.0.1:{free_port()}/"
    assert daemon.request("PATCH", "/job/1", json={"url": gone}).status_code == 200
    assert daemon.request("POST", "/job/1/check").json()["up"] is False

    def sent() -> Any:
        found = daemon.get("/incident?state=open")["items"]
        return found and found[0]["notified"] and found[0]["notified"][0]["at"]

    wait_for(sent, "the incident sent")
    assert daemon.request("DELETE", f"/silence/{made['id']}").status_code == 204


def test_a_reader_sees_maintenance_and_cannot_change_it(daemon: Whole, log_in: LogIn) -> None:
    page = log_in("reader", path=PLAN)
    page.get_by_text("log in with the token of an administrator").wait_for()
    page.get_by_text("nights").wait_for()
    assert page.get_by_role("button", name="Send a test to nobody").count() == 0
    assert daemon.request("POST", "/silence", role="reader", json={"for": 60}).status_code == 403


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_view_fits_and_can_be_used_by_all(
    daemon: Whole, log_in: LogIn, width: int, scheme: str
) -> None:
    page = log_in(
        path=PLAN, viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True
    )
    page.get_by_text("nights").wait_for()
    page.get_by_role("button", name="Send a test to nobody").wait_for()
    assert_usable(page)
