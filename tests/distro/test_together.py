"""All parts installed from the deb: in one daemon, and as units of their own.

Kafka, PostgreSQL, the Kubernetes API, the broker and all who read are outside the machine.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.distro.around import PASSWORD, TOKEN, Around, RouterBroker, around, reading
from tests.distro.built import Built
from tests.distro.peers import CONFIG, UNIT, WEBSOCKET_PORT, Installed
from tests.servers.debian import machine
from tests.servers.kafka import Kafka
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.distro, pytest.mark.timeout(600)]

# Three starts and stops and a reload of six parts; what comes and goes is a line each.
LINES = 60
RECORDING = Path(__file__).parents[1] / "relay" / "broker.jsonl"
FOLDER = "/etc/recodex/monitor"
PARTS = ("relay", "probes", "aggregation", "cluster", "logs", "web")


@pytest.fixture(scope="module")
def installed(built: Built) -> Iterator[Installed]:
    """Install the package with apt, where what it depends on is there."""
    with machine(full=True) as debian:
        debian.copy_in(built.deb, "/srv/new.deb")
        debian.run("apt-get", "-qq", "--yes", "install", "/srv/new.deb")
        yield Installed(debian)


@pytest.fixture(scope="module")
def outside(
    installed: Installed, make_kafka: Callable[..., Kafka], postgres_server: PostgresServer
) -> Iterator[Around]:
    """Prepare the machine as an operator does: secrets, tokens, tables."""
    debian = installed.debian
    with around(debian, make_kafka, postgres_server) as servers:
        debian.write(f"{FOLDER}/database-password", PASSWORD)
        debian.write(f"{FOLDER}/kubeconfig", servers.kubeconfig())
        debian.run("bash", "-c", f"chgrp recodex {FOLDER}/* && chmod 0640 {FOLDER}/*")
        installed.configure(config(servers))
        servers.token = new_token(installed, "operator")
        debian.run("recodex-monitor", "configure-database", "-c", CONFIG)
        yield servers


def new_token(installed: Installed, name: str) -> str:
    """Have a token made; the daemon knows it from its next start or reload on."""
    made = installed.debian.output(
        "recodex-monitor", "token", "create", name, "--role", "admin", "-c", CONFIG
    )
    return made.splitlines()[-1]


def config(servers: Around) -> dict[str, Any]:
    """Return a config with all parts on."""
    return {
        "relay": {"history_file": "history.db", "max_clients": 1000},
        "kafka": {"bootstrap_servers": [servers.bootstrap]},
        "database": {
            "url": servers.database_url,
            "password_file": f"{FOLDER}/database-password",
        },
        "probes": {"jobs": [job(servers, 1, "front")]},
        "aggregation": {"flush_interval": 0.5, "granularities": ["hour"]},
        "cluster": {
            "name": "prod",
            "kubeconfig": f"{FOLDER}/kubeconfig",
            "kinds": ["Deployment"],
        },
        "logs": {"timewindow": 600},
        "api": {"uri": ["0.0.0.0", 9000]},
    }


def job(servers: Around, number: int, name: str) -> dict[str, Any]:
    return {"id": number, "name": name, "url": servers.site, "interval": 0.25}


def entry(message: str) -> dict[str, Any]:
    return {"level": "info", "time": time.time(), "sender": "addon-1", "message": message}


@pytest.fixture(scope="module")
def broker(installed: Installed) -> Iterator[RouterBroker]:
    with contextlib.closing(RouterBroker(installed.debian)) as peer:
        yield peer


def model_events(servers: Around, name: str) -> list[dict[str, Any]]:
    return [each for each in servers.items("/model-update") if each["data"]["name"] == name]


def test_everything_flows_through_one_daemon(
    installed: Installed, outside: Around, broker: RouterBroker
) -> None:
    outside.deploy("churn", "registry.example/churn:1.4")
    installed.restart()
    recording = [json.loads(line)["frames"] for line in RECORDING.read_text().splitlines()]
    for frames in recording:
        broker.send_when_there(*frames)
    assert outside.upload(entry("the valve is open"))["accepted"] == 1
    channels = {frames[0] for frames in recording}
    wait_for(
        lambda: {each["name"] for each in outside.items("/channel")} == channels,
        "the recording's channels",
    )
    texts = []
    with installed.subscriber(recording[0][0]) as subscriber:
        texts = [json.loads(text)["command"] for text in subscriber]
    assert texts == [frames[1] for frames in recording if frames[0] == recording[0][0]]
    wait_for(lambda: outside.items("/job/1/result"), "a result")
    wait_for(lambda: outside.items("/job/1/metric", granularity="hour"), "an hour's metric")
    wait_for(lambda: model_events(outside, "churn"), "the model's event")
    assert [each["message"] for each in outside.items("/log")] == ["the valve is open"]
    health = outside.api("/healthz").json()
    assert {name: part["health"] for name, part in health["parts"].items()} == dict.fromkeys(
        ("bus", *PARTS), "ok"
    )


def test_status_names_each_part_and_how_it_fares(installed: Installed, outside: Around) -> None:
    def status() -> str:
        return installed.debian.show(UNIT, "StatusText")

    wait_for(lambda: "1 jobs" in status(), f"the numbers: {status()}")
    parts = status().split("; ")
    assert [part.split(":")[0].split()[0] for part in parts] == ["bus", *PARTS]
    assert "degraded" not in status()
    wait_for(
        # Its numbers change between two looks.
        lambda: status()[:60] in installed.debian.output("systemctl", "status", "--no-pager", UNIT),
        "the same in systemctl status",
    )


def test_the_page_shows_all_of_it_from_outside(
    installed: Installed, outside: Around, browser: Browser
) -> None:
    said: list[str] = []
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        url = f"http://{installed.debian.address}:9000"
        page.goto(url)
        page.get_by_label("Token").fill(outside.token)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_selector('body[data-connection="live"]')
        for fragment, text in (
            ("#/sites", "front"),
            ("#/models", "churn"),
            ("#/logs", "the valve is open"),
            ("#/relay", json.loads(RECORDING.read_text().splitlines()[0])["frames"][0]),
        ):
            page.goto(f"{url}/{fragment}")
            page.get_by_text(text).first.wait_for()
    assert said == []


def test_a_reload_changes_each_part(installed: Installed, outside: Around) -> None:
    debian = installed.debian
    url = f"ws://{debian.address}:{WEBSOCKET_PORT}/"
    with connect(url, origin=Origin("http://elsewhere.example")):
        pass
    later = new_token(installed, "later")
    assert outside.api("/job", token=later).status_code == 401
    assert outside.items("/job/1/metric", granularity="minute") == []
    changed = copy.deepcopy(config(outside))
    changed["relay"]["origins"] = ["https://recodex.example.org"]
    changed["probes"]["jobs"].append(job(outside, 2, "back"))
    changed["aggregation"]["granularities"] = ["minute", "hour"]
    changed["cluster"]["namespaces"] = ["models", "others"]
    changed["logs"]["max_entry_bytes"] = 1024
    pid = installed.main_pid()
    installed.configure(changed)
    debian.run("systemctl", "reload", UNIT)
    with (
        pytest.raises(InvalidStatus),
        connect(url, origin=Origin("http://elsewhere.example")),
    ):
        pass
    assert {each["id"] for each in outside.items("/job")} == {1, 2}
    wait_for(lambda: outside.items("/job/2/result"), "a result of the new job")
    wait_for(lambda: outside.items("/job/1/metric", granularity="minute"), "a minute's metric")
    outside.deploy("guests", "registry.example/guests:1", namespace="others")
    wait_for(lambda: model_events(outside, "guests"), "an event of the new namespace")
    refused = outside.upload(entry("x" * 2000))["rejected"]
    assert [each["reason"] for each in refused] == ["entry-too-large"]
    assert outside.api("/job", token=later).status_code == 200
    assert installed.main_pid() == pid


def test_a_restart_loses_only_what_the_broker_sent_meanwhile(
    installed: Installed, outside: Around, broker: RouterBroker
) -> None:
    debian = installed.debian
    with reading(debian) as reader:
        epoch = reader.subscribe("student_9")["epoch"]
        broker.send_when_there("student_9", "STARTED")
        broker.send_when_there("student_9", "TASK", "before", "COMPLETED")
        assert [reader.next_of("student_9")["seq"] for _ in range(2)] == [1, 2]
    assert outside.upload(entry("before"), upload_id="once")["status"] == "ok"

    debian.run("systemctl", "stop", UNIT)
    wait_for(
        lambda: not broker.send("student_9", "TASK", "meanwhile", "COMPLETED"),
        "the broker's notice that the relay is gone",
    )
    outside.deploy("churn", "registry.example/churn:1.5")
    debian.run("systemctl", "start", UNIT)
    broker.send_when_there("student_9", "TASK", "after", "COMPLETED")
    broker.send_when_there("student_9", "FINISHED")

    with reading(debian) as again:
        answer = again.subscribe("student_9", (epoch, 2))
        assert (answer["epoch"], answer["recovered"]) == (epoch, True)
        notice, after, finished = (again.next_of("student_9") for _ in range(3))
        assert (notice["type"], notice["state"], notice["seq"]) == ("feed", "gap", 2)
        assert (after["seq"], after["data"]["task_id"]) == (3, "after")
        assert finished["data"]["command"] == "FINISHED"
    # The same upload again is answered as before, and stored no second time.
    assert outside.upload(entry("before"), upload_id="once")["status"] == "ok"
    assert [each["message"] for each in outside.items("/log")] == ["before", "the valve is open"]
    wait_for(lambda: len(model_events(outside, "churn")) == 2, "the change that was missed")
    assert model_events(outside, "churn")[0]["data"]["catch_up"] is True
    published = outside.published()
    wait_for(lambda: published <= outside.stored(), "all results in the database")
    assert outside.rows("SELECT count(*) FROM rejected_message") == [(0,)]


def test_the_journal_reads_well(installed: Installed, outside: Around) -> None:
    debian = installed.debian
    debian.run("systemctl", "stop", UNIT)
    # What was checked has been counted, once.
    stored = outside.stored()
    hours = "SELECT sum(checks) FROM availability_metric WHERE granularity = 'hour'"
    assert outside.rows(hours) == [(len(stored),)]
    journal = debian.journal(UNIT)
    for secret in (PASSWORD, TOKEN, outside.token):
        assert secret not in journal
        assert secret not in debian.path("/var/log/recodex/monitor.log").read_text()
    assert "Traceback" not in journal
    own = [line for line in journal.splitlines() if UNIT not in line]
    odd = [line for line in own if not re.match(r"\[monitor[a-z_.]*\] \S.*[^.\s]$", line)]
    assert odd == []
    assert len(own) <= LINES, journal
    priority = ("journalctl", "--no-pager", "--output=cat", f"--unit={UNIT}", "--priority")
    assert "this origin is not allowed" in debian.output(*priority, "warning")
    assert debian.output(*priority, "err") in {"", "-- No entries --"}


def test_parts_run_as_units_of_their_own(installed: Installed, outside: Around) -> None:
    debian = installed.debian
    whole = config(outside)
    shared = {key: whole[key] for key in ("kafka", "database")}
    own: dict[str, dict[str, Any]] = {
        "producer": {"probes": {"jobs": [job(outside, 7, "apart")]}},
        "consumer": {"aggregation": {"flush_interval": 0.5}},
        "cluster": {"relay": False, "cluster": {**whole["cluster"], "name": "apart"}},
        "logs": {"relay": False, "logs": {}, "api": {"uri": ["0.0.0.0", 9001]}},
    }
    for name, sections in own.items():
        logger = {"file": f"/var/log/recodex/{name}.log"}
        text = json.dumps({"logger": logger, **shared, **sections})
        debian.write(f"{FOLDER}/{name}.yml", text)
    debian.run("bash", "-c", f"chgrp recodex {FOLDER}/* && chmod 0640 {FOLDER}/*")
    installed.configure({"relay": {}})
    instances = ("producer-1", "consumer-1", "consumer-2", "cluster", "logs")
    units = {name: f"recodex-monitor@{name}.service" for name in instances}
    debian.run("systemctl", "start", UNIT, *units.values())

    def counted() -> int:
        return sum(job_id == 7 for job_id, _ in outside.stored())

    wait_for(lambda: counted() > 3, "results from one unit through Kafka to the other")
    assert outside.upload(entry("apart"), port=9001)["accepted"] == 1
    wait_for(
        lambda: outside.rows("SELECT 1 FROM model_event WHERE cluster = 'apart'"),
        "the models of the other cluster's name",
    )
    for name, part in (("producer-1", "probes"), ("consumer-1", "aggregation"), ("logs", "logs")):
        assert part in debian.show(units[name], "StatusText")
    # One consumer goes; the other takes its partitions over, and nothing is lost or counted twice.
    debian.run("systemctl", "stop", units["consumer-1"])
    before = counted()
    wait_for(lambda: counted() > before, "results after a consumer went")
    debian.run("systemctl", "stop", units["producer-1"])
    published = outside.published()
    wait_for(lambda: published <= outside.stored(), "all results in the database")
    debian.run("systemctl", "stop", *units.values(), UNIT)
    for unit in units.values():
        said = debian.journal(unit)
        assert "Traceback" not in said
        assert PASSWORD not in said
        assert TOKEN not in said
