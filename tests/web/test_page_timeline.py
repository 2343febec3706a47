"""The timeline, incidents, uptime and models on the live page, in a real Chromium."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import monitor.web
from benchmarks.web import first_visits
from monitor import messages
from monitor.aggregation import sqlite_rows
from monitor.aggregation.windows import aggregate
from monitor.cluster.events import ROLLED_BACK, UPGRADED
from monitor.messages import ModelEvent, Phases, Result
from monitor.probes.checks import read_job
from monitor.probes.jobs_table import save_jobs
from monitor.store import Connection, DatabaseSettings, open_store
from tests.cluster.plays import DeploymentPlay
from tests.ports import free_port
from tests.servers.browser import assert_usable
from tests.servers.kubernetes import KubernetesServer
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.end_to_end

LIMIT_MS = 60_000
STATIC = Path(monitor.web.__file__).parent / "static"
VISITED = [
    "#/",
    "#/sites",
    "#/sites/1",
    "#/sites/1/edit",
    "#/sites/import",
    "#/sites/certificates",
    "#/incidents",
    "#/incidents/maintenance",
    "#/models",
    "#/logs",
    "#/logs/addon-1",
    "#/relay",
    "#/relay/student_1",
    "#/topics",
    "#/topics/website_availability",
]
MOST_BYTES = 60_000
SAID = "front page went down 2 min after churn 1.5 rolled out"
VIEWS = {
    "#/?time=21600": ".tl-said",
    "#/incidents": ".incidents li",
    "#/sites/1": ".chart svg:has(path)",
    "#/sites/certificates": ".picture[data-kind=empty]",
    "#/models": ".table.models tbody tr",
    "#/models/models/hints": ".table.models tbody tr",
    "#/logs/addon-1": ".tl-svg",
}


def past(url: str, now: float) -> tuple[list[Result], list[tuple[str, str, float, str]]]:
    """Return an outage of an hour ago, the rollout before it, and the rollback that ended it."""
    down_from, down_until = now - 3600, now - 3000
    choose = random.Random(1)
    results = [
        Result(
            job_id=1,
            url=url,
            scheduled_at=at,
            checked_at=at,
            up=not down_from <= at < down_until,
            status=503 if down_from <= at < down_until else 200,
            response_time=took,
            duration=took,
            error="bad-status: 503" if down_from <= at < down_until else None,
            phases=Phases(resolve=took / 64, connect=took / 32, processing=took),
        )
        for step in range(355)
        for at in [now - 7200 + 20 * step]
        for took in [round(0.04 + 0.02 * choose.random(), 6)]
    ]
    events = [(UPGRADED, "1.5", down_from - 125, "e1"), (ROLLED_BACK, "1.4", down_until - 65, "e2")]
    return results, events


async def write_past(file: Path, jobs: list[dict[str, Any]], now: float) -> None:
    store = open_store(DatabaseSettings(file=str(file)))
    await store.start()
    results, events = past(jobs[0]["url"], now)

    def write(connection: Connection) -> None:
        save_jobs(connection, [read_job(job) for job in jobs])
        sqlite_rows.insert_results(connection, results, sqlite_rows.result_rows(results))
        windows = aggregate(results, ["minute", "hour", "day"])
        sqlite_rows.add_metrics(connection, sqlite_rows.metric_rows(windows))
        for type_, version, at, id_ in events:
            data = ModelEvent(
                cluster="prod",
                namespace="models",
                kind="Deployment",
                name="churn",
                model="churn",
                version=version,
                duration=20.0,
                changed_by="alice",
                link="https://console.example.org/churn",
                cause="image-changed",
            )
            connection.insert(
                "model_event",
                ("id", "cluster", "type", "source", "key", "time", "data", "forwarded_at"),
                [(id_, "prod", type_, "/", "models/churn", at, messages.encode(data).decode(), at)],
            )

    await store.transaction(write)
    await store.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("past")
    port = free_port()
    own = f"http://127.0.0.1:{port}/website_mock?delay=0&size=9"
    jobs = [
        {"id": 1, "name": "front page", "url": f"{own}&status=200", "interval": 20},
        {"id": 2, "name": "ill", "url": f"{own}&status=503", "interval": 0.5},
        {"id": 3, "name": "worse", "url": f"{own}&status=500", "interval": 0.5},
        {"id": 4, "name": "daily", "url": f"{own}&status=200", "interval": 80_000},
    ]
    # Playwright's loop runs in this thread.
    with ThreadPoolExecutor(1) as thread:
        file, now = folder / "monitor.db", time.time()
        thread.submit(lambda: asyncio.run(write_past(file, jobs, now))).result()
    server = KubernetesServer()
    for step in DeploymentPlay("hints").create("registry.example/hints:2.0"):
        for write in step:
            assert write.item is not None
            server.write(write.plural, write.item)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server.url}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    rule = {"name": "site down", "watch": "site", "failures": 1, "receivers": ["hook"]}
    try:
        with whole(
            database={"file": str(folder / "monitor.db")},
            probes={"source": "database"},
            cluster={"kubeconfig": str(kubeconfig), "kinds": ["Deployment"]},
            alerts={
                "receivers": [{"name": "hook", "webhook": "http://127.0.0.1:9/"}],
                "rules": [rule],
            },
            api={"uri": ["127.0.0.1", port], "tokens_file": None, "website_mock": True},
            logs={"timewindow": 600},
            aggregation={
                "flush_interval": 0.2,
                "fields": [{"field": "duration", "functions": ["max", "p95"]}],
            },
        ) as running:
            running.wait_for_state(2, "down")
            running.wait_for_state(3, "down")
            yield running
    finally:
        server.stop()


class Quiet:
    """Pages that must not complain."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self.said: list[str] = []
        self._contexts: list[Any] = []

    def open(self, fragment: str, *, script: str = "", **options: Any) -> Page:
        context = self._browser.new_context(**options)
        context.add_init_script(script)
        context.set_default_timeout(LIMIT_MS)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.goto(f"{self._url}/{fragment}")
        page.wait_for_selector('body[data-connection="live"]')
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        assert self.said == []


@pytest.fixture
def pages(browser: Browser, daemon: Whole) -> Iterator[Quiet]:
    quiet = Quiet(browser, daemon.url)
    yield quiet
    quiet.close()


def test_an_outage_is_on_one_clock_with_the_rollout_before_it_and_in_words(pages: Quiet) -> None:
    page = pages.open("#/?time=21600")
    said = page.locator(".tl-said li", has_text=SAID)
    # A number is not cut from its unit.
    assert "well again 1\xa0min after churn was rolled back to 1.4" in said.inner_text()
    # A line leads from the rollout to the outage.
    assert page.locator(".tl-link").count() >= 1
    said.get_by_role("button").click()
    page.wait_for_selector(".tl-words:has-text('bad-status')")
    assert page.locator(".tl-link.tl-selected").count() == 1
    # The same as a list.
    page.locator("summary", has_text="As a list").click()
    line = page.locator(".tl-list li", has_text="front page down")
    words = line.inner_text().replace("\xa0", " ")
    assert SAID in words
    assert "10 min" in words
    assert page.locator(".tl-list li", has_text="churn 1.5 rolled out").first.is_visible()


def test_the_timeline_is_read_and_moved_by_keys_and_its_range_is_in_the_address(
    pages: Quiet,
) -> None:
    page = pages.open("#/?time=21600", timezone_id="Europe/Prague")
    page.wait_for_selector(".tl-mark")
    plot = page.get_by_role("group", name="Timeline of")
    plot.focus()
    page.keyboard.press("Home")
    page.wait_for_selector(".tl-words:has-text('churn 1.5 rolled out')")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".tl-words:has-text('front page down')")
    page.keyboard.press("+")
    page.wait_for_url("**time=*-*")
    zoomed = page.locator(".tl-range").inner_text()
    assert zoomed.endswith("3 h")
    page.keyboard.press("Shift+ArrowLeft")
    moved = page.locator(".tl-range").inner_text()
    assert moved != zoomed
    page.reload()
    page.wait_for_selector(".tl-svg")
    assert page.locator(".tl-range").inner_text() == moved
    page.get_by_role("button", name="Now", exact=True).click()
    page.wait_for_url("**time=*")
    assert page.locator(".tl-range").inner_text().endswith("3 h")
    page.get_by_role("button", name="24 h").click()
    assert "time=" in page.url or page.url.endswith("#/")
    # Days begin at midnight, even after the day on which the clocks were changed.
    page.evaluate("location.hash = '#/?time=1729720800-1730329200'")
    page.wait_for_selector(".tl-range:has-text('2024-10-24 00:00 to 2024-10-31 00:00')")
    assert page.locator(".tl-tick").all_text_contents() == [f"10-{day}" for day in range(25, 32)]


def drag(page: Page, begin: float, end: float, above: float, sign: str) -> None:
    """Drag over the timeline, ``above`` its lower edge; ``sign`` is there while it is dragged.

    What the page still loads moves the timeline away from under the pointer: then once more.
    """
    plot = page.locator(".tl-plot")

    def edges() -> tuple[float, float]:
        box = plot.bounding_box()
        assert box is not None
        return box["x"], box["y"] + box["height"] - above

    dragging = False
    while not dragging:
        plot.scroll_into_view_if_needed()
        left, y = edges()
        page.mouse.move(left + begin, y)
        if edges() == (left, y):
            page.mouse.down()
            page.mouse.move(left + end, y, steps=5)
            dragging = page.locator(sign).count() == 1
            page.mouse.up()


def test_the_range_is_dragged_and_the_clock_zooms(pages: Quiet) -> None:
    page = pages.open("#/?time=21600")
    page.wait_for_selector(".tl-mark")
    page.get_by_label("Open incidents", exact=True).get_by_text("ill is down").wait_for()
    before = page.locator(".tl-range").inner_text()
    drag(page, 300, 600, 60, ".tl-plot.tl-moving")
    moved = page.locator(".tl-range").inner_text()
    assert moved != before
    assert moved.endswith("6 h")
    drag(page, 100, 300, 8, ".tl-brush")
    zoomed = page.locator(".tl-range").inner_text()
    assert zoomed.endswith("min")
    page.wait_for_url("**time=*-*")


def test_open_incidents_lead_and_are_acknowledged_and_silenced(pages: Quiet, daemon: Whole) -> None:
    page = pages.open("#/")
    panel = page.get_by_label("Open incidents", exact=True)
    panel.get_by_text("ill is down").wait_for()
    assert panel.get_by_text("rule site down").first.is_visible()
    other = pages.open("#/incidents")
    line = other.locator(".incidents li", has_text="worse is down")
    line.get_by_role("button", name="Acknowledge").click()
    # Every page hears of it.
    known = page.locator(".incidents li.known", has_text="worse is down")
    known.get_by_text("acknowledged by anyone").wait_for()
    known.get_by_role("link", name="worse is down").click()
    page.wait_for_selector("dd:has-text('by anyone')")
    page.wait_for_selector(".tl-svg")
    ill = other.locator(".incidents li", has_text="ill is down")
    ill.get_by_role("button", name="Silence").click()
    ill.get_by_role("button", name="for 1 hour").click()
    other.locator(".incidents li.quiet", has_text="ill is down").wait_for()
    (silence,) = daemon.get("/silence")["items"]
    assert silence["match"]["jobs"] == [2]
    assert daemon.request("DELETE", f"/silence/{silence['id']}").status_code == 204
    # Outages that no rule told of are there, too.
    other.get_by_role("row").filter(has_text="front page down").get_by_text(SAID).wait_for()


# What a site's view does every 15 s it does each second.
OFTEN = """const usual = setInterval;
window.setInterval = (act, ms) => usual(act, ms === 15000 ? 1000 : ms);"""


def test_a_site_shows_its_uptime_by_time_and_what_is_measured(pages: Quiet) -> None:
    page = pages.open("#/sites/1", script=OFTEN)
    spans = page.locator(".spans")
    spans.get_by_text("down 10 min").first.wait_for()
    page.get_by_text("By time, not by checks").click()
    page.wait_for_selector("text=Each hour counts for an hour")
    page.wait_for_selector(".chart svg:has(path)")
    choice = page.get_by_label("What the chart shows")
    choice.select_option("duration")
    page.wait_for_selector(".chart .legend >> text=max")
    page.wait_for_url("**field=duration*")
    choice.select_option("")
    page.wait_for_selector(".chart .legend >> text=p50")
    # A zoom outlives the next refresh.
    over = page.locator(".plot")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 80, steps=4)
    page.mouse.up()
    page.wait_for_selector('.chart[data-zoomed="true"]')
    # The second one is asked for after the first was drawn.
    for _ in range(2):
        page.wait_for_event("response", lambda response: "/metric" in response.url)
    assert page.locator(".chart").get_attribute("data-zoomed") == "true"
    # The keyboard does the same, and reads each window.
    over.press("Escape")
    page.wait_for_selector('.chart[data-zoomed="false"]')
    over.press("End")
    words = page.locator(".chart .bar-words")
    words.get_by_text("p50").wait_for()
    last = words.inner_text()
    over.press("ArrowLeft")
    assert words.inner_text() != last
    over.press("+")
    page.get_by_role("button", name="Show all").press("Enter")
    page.wait_for_selector('.chart[data-zoomed="false"]')
    page.wait_for_selector(".plot:focus")


def test_a_site_that_was_never_checked_is_checked_now(pages: Quiet) -> None:
    page = pages.open("#/sites/4")
    page.wait_for_selector(".facts >> text=not checked yet")
    page.get_by_role("button", name="Check now").click()
    page.wait_for_selector(".facts .state.up")
    page.wait_for_selector(".table .state.up")


def test_models_show_what_runs_and_all_are_searched(pages: Quiet) -> None:
    page = pages.open("#/models")
    row = page.locator(".table.models tbody tr", has_text="hints")
    row.get_by_text("2.0").wait_for()
    assert "2 of 2" in row.inner_text()
    page.get_by_label("Search models and their events").fill("alice")
    page.wait_for_selector("text=No model that runs now matches")
    page.locator(".timeline li", has_text="churn rolled back").wait_for()
    page.wait_for_url("**q=alice*")
    link = page.get_by_role("link", name="console").first
    assert link.get_attribute("href") == "https://console.example.org/churn"
    page.locator(".timeline li").first.get_by_role("link", name="churn").click()
    page.wait_for_selector("text=It does not run now.")
    page.wait_for_selector(".timeline li >> text=took 20 s")
    page.locator(".tl-svg .tl-mark").nth(1).wait_for(state="attached")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_views_can_be_used_by_all(pages: Quiet, width: int, scheme: str) -> None:
    page = pages.open(
        "#/",
        color_scheme=scheme,
        viewport={"width": width, "height": 844},
        reduced_motion="reduce",
        bypass_csp=True,  # for axe alone
    )
    for fragment, selector in VIEWS.items():
        page.evaluate("fragment => { location.hash = fragment; }", fragment)
        page.locator(selector).first.wait_for()
        assert_usable(page, f"{fragment}, {scheme}, {width}")


def test_a_first_visit_of_a_view_is_small_with_its_data(daemon: Whole, browser: Browser) -> None:
    modules = (STATIC / "views").iterdir()
    assert len(VISITED) == len(list(modules)), "a view is not visited"
    addresses = [f"{daemon.url}/{fragment}" for fragment in VISITED]
    for address, found in first_visits(browser, addresses):
        assert {"hello ", "status "} <= found.keys()
        assert sum(found.values()) < MOST_BYTES, (address, found)
