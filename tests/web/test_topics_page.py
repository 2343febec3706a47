"""Topics on the page: what is on the bus, its messages, and those that could not be counted."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.servers.browser import assert_usable
from tests.servers.kafka import Kafka
from tests.waiting import wait_for
from tests.web.conftest import LogIn
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.end_to_end

TOPIC = "website_availability"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        body = {"name": "first", **running.mock(), "interval": 1}
        assert running.request("POST", "/job", json=body).status_code == 201
        running.wait_for_state(1, "up")
        with sqlite3.connect(running.folder / "monitor.db") as database:
            database.execute(
                'INSERT INTO rejected_message (topic, partition, "offset", rejected_at, reason,'
                " payload) VALUES (?, 0, 999999, 1700000000.0, 'not-json', ?)",
                (TOPIC, b'<img src=x onerror="evil()">'),
            )
        database.close()
        yield running


@pytest.mark.parametrize("width", [1280, 360])
def test_an_admin_reads_topics_and_messages_and_follows_them(
    daemon: Whole, log_in: LogIn, width: int
) -> None:
    page = log_in(viewport={"width": width, "height": 844}, bypass_csp=True)
    page.get_by_role("link", name="Topics").click()
    page.get_by_label("Topics", exact=True).get_by_role("link", name=TOPIC).click()
    messages = page.locator(".messages li")
    messages.first.wait_for()
    messages.first.locator("summary").click()
    # The newest are followed: there is no next page of them.
    assert page.get_by_role("button", name="Read on").count() == 0
    # By now there may be a newer one above it.
    shown = page.locator(".messages details[open] pre").inner_text()
    assert '"job_id": 1,\n' in shown
    # It stays open while others come.
    newest = page.locator(".messages li b").first.inner_text()
    page.wait_for_function(
        "before => document.querySelector('.messages li b').textContent !== before", arg=newest
    )
    assert page.locator(".messages details[open]").count() == 1
    page.get_by_label("Search messages").fill("no such words")
    page.get_by_text("0 of the").wait_for()
    page.get_by_label("Search messages").fill("")
    page.get_by_label("From offset").fill("1")
    page.get_by_label("From offset").press("Tab")
    page.wait_for_url("**offset=1*")
    for path in ("topics", f"topics/{TOPIC}"):
        page.goto(f"{daemon.url}/#/{path}")
        page.wait_for_selector(f"text={TOPIC}")
        assert_usable(page, path)


def test_a_message_that_comes_during_a_press_does_not_swallow_the_click(
    daemon: Whole, log_in: LogIn
) -> None:
    page = log_in()
    page.goto(f"{daemon.url}/#/topics/{TOPIC}")
    row = page.locator(".messages li summary").first
    row.wait_for()
    row.scroll_into_view_if_needed()
    box = row.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 9, box["y"] + box["height"] / 2)
    page.mouse.down()
    before = page.locator(".title p[role=status]").inner_text()
    page.wait_for_function(
        "before => document.querySelector('.title p[role=status]').textContent !== before",
        arg=before,
    )
    page.mouse.up()
    page.locator(".messages details[open]").wait_for()


def test_consumers_of_the_spool_are_shown_with_what_is_left(daemon: Whole, log_in: LogIn) -> None:
    def caught_up() -> bool:
        (found,) = daemon.get("/consumer")["items"]
        assert (found["topic"], found["active"]) == (TOPIC, None)
        assert found["lag"] == sum(each["lag"] for each in found["partitions"])
        return bool(found["group"] == "recodex-monitor" and found["lag"] == 0)

    page = log_in()
    wait_for(caught_up, "the aggregation reading to the end")
    page.goto(f"{daemon.url}/#/topics")
    row = page.get_by_label("Consumers").locator("tbody tr")
    row.get_by_text("recodex-monitor").wait_for()
    assert daemon.request("GET", "/consumer", role="reader").status_code == 403


def test_consumers_of_kafka_are_shown_and_that_nobody_reads(kafka: Kafka, log_in: LogIn) -> None:
    topic = f"consumers-{uuid.uuid4().hex[:8]}"
    own = {"topic": topic, "group": f"group-{topic}"}
    with whole(
        tokens=True,
        kafka={"bootstrap_servers": [kafka.bootstrap]},
        probes={"source": "database", "topic": topic},
        aggregation={**own, "flush_interval": 0.2},
    ) as running:
        body = {"name": "first", **running.mock(), "interval": 1}
        assert running.request("POST", "/job", json=body).status_code == 201
        wait_for(lambda: running.get("/job/1/result")["items"], "a result through Kafka")
        # Another program, that read one message and left.
        reader = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap,
                "group.id": f"gone-{topic}",
                "enable.auto.commit": False,
            }
        )
        reader.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
        reader.close()
        page = log_in(whole=running)
        page.goto(f"{running.url}/#/topics")
        rows = page.get_by_label("Consumers").locator("tbody tr")
        ours = rows.filter(has_text=f"group-{topic}")
        ours.wait_for()
        assert "nobody reads now" not in ours.inner_text()
        rows.filter(has_text=f"gone-{topic}").get_by_text("nobody reads now").wait_for()


def test_a_rejected_message_is_text_and_is_tried_again(daemon: Whole, log_in: LogIn) -> None:
    page = log_in()
    page.goto(f"{daemon.url}/#/topics")
    row = page.get_by_label("Rejected messages").locator("li")
    row.first.locator("summary").click()
    assert row.first.locator("pre").inner_text() == '<img src=x onerror="evil()">'
    row.first.get_by_role("button", name="Try again").click()
    # Nothing makes a result of it.
    page.get_by_text("0 counted").wait_for()
    wait_for(lambda: len(daemon.get("/rejected")["items"]) == 1, "the message still there")


def test_a_reader_has_no_topics_and_sees_why(daemon: Whole, log_in: LogIn) -> None:
    page = log_in("reader")
    assert page.get_by_role("link", name="Topics").count() == 0
    page.goto(f"{daemon.url}/#/topics")
    page.get_by_text("may not be seen with this token").first.wait_for()
