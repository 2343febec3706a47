"""The part in one process, with real messages and a real receiver over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from monitor.alerts import reader
from monitor.alerts.acknowledging import acknowledge
from monitor.alerts.incidents import Incident
from monitor.alerts.jobs import JobFacts
from monitor.bus import BusSettings
from monitor.bus.spool import SpoolBus
from monitor.logs.entries import Entry
from monitor.logs.filters import Kind
from monitor.logs.tables import AcceptedUpload, commit
from monitor.part import Health, State
from monitor.store import DatabaseSettings
from tests.alerts.receiver import HttpReceiver, response
from tests.alerts.running import SITE, TOPIC, Clock, result, running, settings, webhook
from tests.servers.postgres import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("soon")


async def test_failed_results_in_a_row_open_an_incident_and_a_good_one_ends_it(
    tmp_path: Path, database: DatabaseSettings
) -> None:
    (tmp_path / "secret").write_text("key\n")
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url)
        config["receivers"][0]["secret_file"] = str(tmp_path / "secret")
        async with running(tmp_path, config, database=database) as now:
            await now.check((1, False), (2, False), (1, True), (1, False), (1, False))
            (opened,) = await receiver.until(1)
            body = opened.json
            assert body["event"] == "opened"
            assert body["incident"] == body["incidents"][0]
            assert body["delivery"] == opened.headers["x-delivery"]
            digest = hmac.new(b"key", opened.body, hashlib.sha256).hexdigest()
            assert opened.headers["x-signature-256"] == f"sha256={digest}"
            incident = body["incident"]
            assert (incident["subject"], incident["job"], incident["rule"]) == ("1", 1, "site down")
            assert incident["title"] == "https://1.example.org/ is down"
            assert incident["reason"] == "timeout (2 failed checks in a row)"
            await now.check((1, True))
            _, resolved = await receiver.until(2)
            assert resolved.json["event"] == "resolved"
            assert resolved.json["incident"]["id"] == incident["id"]
            (stored,) = await now.until(lambda found: found[0].notified[-1].event == "resolved")
            assert [(each.receiver, each.event) for each in stored.notified] == [
                ("hook", "opened"),
                ("hook", "resolved"),
            ]
            await until(lambda: now.part.state().summary == "0 open incidents")


@pytest.mark.integration_test
async def test_an_incident_is_sent_though_the_database_lacks_characters_of_its_texts(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    name = f"{postgres_server.create_database()}_latin1"
    postgres_server.execute(f"CREATE DATABASE {name} ENCODING LATIN1 TEMPLATE template0")
    database = DatabaseSettings(url=postgres_server.url(name))
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url, {**SITE, "name": "web neběží"})
        fact = JobFacts(id=1, name="síť 漢", url="http://1/", interval=60)
        async with running(tmp_path, config, fact, database=database) as now:
            await now.check((1, False), (1, False), error="→ 漢")
            await receiver.until(1)
            # Otherwise it would be sent again after the restart.
            await now.until(lambda found: [n.at for n in found[0].notified if n.at])
        async with running(tmp_path, config, fact, database=database) as now:
            await now.check((1, True))
            await receiver.until(2)
        assert receiver.events() == [("opened", "1"), ("resolved", "1")]
        for message in receiver.accepted:
            incident = message.json["incident"]
            assert incident["rule"] == "web neběží"
            assert incident["title"] == "síť 漢 is down"
            assert incident["reason"].startswith("→ 漢 (2 failed")


async def test_an_outage_of_1000_sites_is_one_message_and_so_is_its_end(tmp_path: Path) -> None:
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url, {**SITE, "failures": 1}, group_wait=2)
        async with running(tmp_path, config) as now:
            for up in (False, True):
                await now.check(*((job_id, up) for job_id in range(1, 1001)))
                await receiver.until(2 if up else 1)
            assert [len(each.json["incidents"]) for each in receiver.accepted] == [1000, 1000]
            assert [each.json["event"] for each in receiver.accepted] == ["opened", "resolved"]
            # Each incident of it is the same in both.
            opened, resolved = (
                {each["id"] for each in message.json["incidents"]} for message in receiver.accepted
            )
            assert opened == resolved


async def test_what_is_over_by_the_time_the_part_is_back_is_one_message_that_says_so(
    tmp_path: Path,
) -> None:
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url)
        async with running(tmp_path, config) as now:
            await now.check((1, True), (2, True), (3, True))
            await until(lambda: now.part._readers[TOPIC]._stored[0] > 0)
        bus = SpoolBus(BusSettings(file=str(tmp_path / "spool.db")))
        await bus.start()
        at = time.time()
        for number, (job_id, up) in enumerate(
            [(1, False), (1, False), (2, False), (3, False), (2, False), (1, True), (3, True)]
        ):
            value = json.dumps(result(job_id, at + number, up=up)).encode()
            bus.publish(TOPIC, key=str(job_id), value=value, headers={})
        assert await bus.committed()
        await bus.close()
        async with running(tmp_path, config) as now:
            await receiver.until(2)
            await now.until(lambda found: [len(each.notified) for each in found] == [1, 1])
        assert sorted(receiver.events()) == [("opened", "2"), ("resolved", "1")]
        (ended,) = (
            each.json["incident"] for each in receiver.accepted if each.json["event"] == "resolved"
        )
        assert ended["opened_at"] == at + 1
        assert ended["resolved_at"] == at + 5


async def test_an_incident_that_ends_and_begins_again_while_the_part_is_off_is_two(
    tmp_path: Path,
) -> None:
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url, {**SITE, "failures": 1})
        async with running(tmp_path, config) as now:
            await now.check((1, False))
            await receiver.until(1)
            await now.until(lambda found: [n.at for n in found[0].notified if n.at])
        bus = SpoolBus(BusSettings(file=str(tmp_path / "spool.db")))
        await bus.start()
        for number, up in enumerate((True, False), 1):
            value = json.dumps(result(1, time.time() + number, up=up)).encode()
            bus.publish(TOPIC, key="1", value=value, headers={})
        assert await bus.committed()
        await bus.close()
        async with running(tmp_path, config) as now:
            await receiver.until(3)
            first, second = await now.incidents()
        assert sorted(receiver.events()) == [("opened", "1"), ("opened", "1"), ("resolved", "1")]
        assert first.resolved_at is not None
        assert second.resolved_at is None


async def test_a_clock_that_is_set_back_holds_up_no_message(tmp_path: Path) -> None:
    async with HttpReceiver(lambda _: response(500)) as receiver:
        clock = Clock()
        config = webhook(receiver.url, {**SITE, "failures": 1}, group_wait=1)
        async with running(tmp_path, config, clock=clock) as now:
            await now.check((1, True))
            await until(lambda: not now.part._readers[TOPIC]._intake._begin)
            clock.ahead = 7000
            await now.check((1, False))
            await now.until(len)
            clock.ahead = 0  # an incident waits for its time
            await until(lambda: receiver.requests)
            clock.ahead = -7000  # a message waits for another attempt
            receiver.answer = lambda _: response(200)
            await receiver.until(1)


async def test_a_clock_that_is_set_back_after_a_storm_holds_up_no_message(tmp_path: Path) -> None:
    async with HttpReceiver() as receiver:
        clock = Clock()
        config = webhook(receiver.url, {**SITE, "failures": 1}, group_wait=0.5)
        async with running(tmp_path, config, clock=clock) as now:
            await now.check(*((job_id, False) for job_id in range(1, 21)))
            await receiver.until(1)
            clock.ahead = -3000
            await now.check((30, False))
            await receiver.until(2)
            assert receiver.events()[-1] == ("opened", "30")


async def test_what_was_published_before_the_part_was_ever_on_is_not_judged(tmp_path: Path) -> None:
    bus = SpoolBus(BusSettings(file=str(tmp_path / "spool.db")))
    await bus.start()
    for second in range(3):
        value = json.dumps(result(1, time.time() + second, up=False)).encode()
        bus.publish(TOPIC, key="1", value=value, headers={})
    assert await bus.committed()
    await bus.close()
    async with HttpReceiver() as receiver, running(tmp_path, webhook(receiver.url)) as now:
        await now.check((2, False), (2, False))
        await receiver.until(1)
        assert receiver.events() == [("opened", "2")]


async def test_a_reload_adopts_rules_and_receivers_and_open_incidents_stay_open(
    tmp_path: Path,
) -> None:
    async with (
        HttpReceiver() as old,
        HttpReceiver() as new,
        running(tmp_path, webhook(old.url)) as now,
    ):
        await now.check((1, False), (1, False))
        await old.until(1)
        config = webhook(new.url, {**SITE, "name": "stricter", "failures": 1})
        await now.reload(settings(**config))
        await now.check((2, False))
        await new.until(1)
        assert new.events() == [("opened", "2")]
        (first, _) = await now.incidents()
        assert first.resolved_at is None
        # The receiver of the same name gets the end of what it was sent.
        await now.check((1, True))
        await new.until(2)
        assert new.accepted[1].json["incident"]["id"] == first.id


async def test_messages_that_wait_go_to_the_url_that_replaces_theirs(tmp_path: Path) -> None:
    urls = tmp_path / "oncall.urls"
    async with HttpReceiver(lambda _: response(401)) as locked, HttpReceiver() as good:
        other = f"json://127.0.0.1:{good.port}/other"
        urls.write_text(f"json://me:old@127.0.0.1:{locked.port}/token\n{other}\n")
        config = webhook("", SITE | {"failures": 1})
        config["receivers"] = [{"name": "hook", "urls_file": str(urls)}]
        async with running(tmp_path, config) as now:
            await now.check((1, False))
            await until(lambda: locked.requests and good.requests)
            urls.write_text(f"{other}\njson://me:new@127.0.0.1:{good.port}/token\n")
            await now.reload(settings(**config))
            await good.until(2)
            assert [each.path for each in good.accepted] == ["/other", "/token"]
            # One that nothing replaces is given up.
            await now.check((2, False))
            await good.until(4)
            good.answer = lambda _: response(500)
            await now.check((3, False))
            await until(lambda: len(good.requests) >= 6)
            urls.write_text(f"{other}\n")
            await now.reload(settings(**config))
            (*_, last) = await now.until(
                lambda found: any(
                    notice.error == "the receiver was removed from the config"
                    for notice in found[-1].notified
                )
            )
            assert len(last.notified) == 2


async def test_an_open_incident_is_repeated_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with HttpReceiver() as receiver:
        clock = Clock()
        config = webhook(receiver.url, {**SITE, "failures": 1, "repeat": 3600})
        async with running(tmp_path, config, clock=clock) as now:
            await now.check((1, False))
            await receiver.until(1)
            clock.ahead += 3601
            await receiver.until(2)
            (incident,) = await now.incidents()
            await now.store.transaction(lambda c: acknowledge(c, incident.id, by="me", now=clock()))
            clock.ahead += 3601
            await now.check((1, True))
            await receiver.until(3)
            assert receiver.events() == [("opened", "1"), ("repeated", "1"), ("resolved", "1")]
            assert receiver.accepted[2].json["incident"]["acknowledged_by"] == "me"


async def test_rules_on_parts_and_on_the_feed_wait_for_their_time(tmp_path: Path) -> None:
    async with HttpReceiver() as receiver:
        clock = Clock()
        config = webhook(
            receiver.url,
            {"name": "degraded", "watch": "part", "for": 300},
            {"name": "broker lost", "watch": "feed", "for": 60},
        )
        async with running(tmp_path, config, clock=clock, wait=False) as now:
            now.states["logs"] = State(Health.DEGRADED, "the disk is full; trying again")
            now.connected[0] = False
            await until(lambda: len(now.part._parts_watch.states or ()) == 2)
            assert await now.incidents() == []
            clock.ahead += 61
            await receiver.until(1)
            clock.ahead += 240
            await receiver.until(2)
            assert receiver.events() == [("opened", "relay"), ("opened", "logs")]
            assert receiver.accepted[1].json["incident"]["reason"].startswith("the disk is full")
            now.connected[0], now.states["logs"] = True, State(Health.OK)
            await until(lambda: len(receiver.events()) == 4)


async def test_results_that_stay_away_open_an_incident_and_one_ends_it(tmp_path: Path) -> None:
    async with HttpReceiver() as receiver:
        clock = Clock()
        job = JobFacts(id=1, name="one", url="http://1/", interval=60, timeout=10)
        other = JobFacts(id=2, name="two", url="http://2/", interval=60, running=False)
        config = webhook(receiver.url, {"name": "no results", "watch": "silence", "intervals": 3})
        async with running(tmp_path, config, job, other, clock=clock) as now:
            await now.check((1, True))
            await until(lambda: 1 in now.part._results.seen)
            clock.ahead += 170
            await now.publish(result(1, clock(), up=False))
            await until(lambda: now.part._results.seen[1] > time.time() + 100)
            clock.ahead += 170
            assert await now.incidents() == []
            clock.ahead += 60
            await receiver.until(1)
            await now.publish(result(1, clock(), up=True))
            await receiver.until(2)
            assert receiver.events() == [("opened", "1"), ("resolved", "1")]


async def test_a_sender_with_many_errors_opens_an_incident_until_they_are_over(
    tmp_path: Path, database: DatabaseSettings
) -> None:
    async with HttpReceiver() as receiver:
        rule = {"name": "errors", "watch": "logs", "count": 3, "within": 300}
        config = webhook(receiver.url, {**rule, "match": {"sender": "addon-*"}})
        clock = Clock()
        async with running(tmp_path, config, database=database, clock=clock, wait=False) as now:

            async def log(*entries: tuple[str, str]) -> None:
                at = clock()
                upload = AcceptedUpload(
                    Kind.LOGS, [Entry(level, at, sender, "no disk") for sender, level in entries]
                )
                await now.store.transaction(
                    lambda c: commit(c, [upload], received_at=at, width_s=60, instance="i")
                )

            await log(("addon-1", "error"), ("addon-2", "error"), ("other", "error"))
            await log(("addon-1", "info"), ("addon-1", "critical"), *[("other", "error")] * 3)
            await log(("addon-2", "error"), ("addon-1", "error"))
            (opened,) = await receiver.until(1)
            assert opened.json["incident"]["subject"] == "addon-1"
            assert opened.json["incident"]["reason"] == "no disk"
            clock.ahead += 301
            await receiver.until(2)
            assert receiver.events() == [("opened", "addon-1"), ("resolved", "addon-1")]


async def test_what_waited_of_a_job_that_was_stopped_since_is_one_incident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_POLL_RECORDS", 2)
    config = webhook("http://127.0.0.1:9/", {**SITE, "failures": 1})
    async with running(tmp_path, config) as now:
        await now.check((1, True))
        await until(lambda: now.part._readers[TOPIC]._stored[0] > 0)
    bus = SpoolBus(BusSettings(file=str(tmp_path / "spool.db")))
    await bus.start()
    for number in range(8):
        value = json.dumps(result(1, time.time() + number / 100, up=False)).encode()
        bus.publish(TOPIC, key="1", value=value, headers={})
    assert await bus.committed()
    await bus.close()
    stopped = JobFacts(id=1, name="", url="https://1.example.org/", interval=1, running=False)
    async with running(tmp_path, config, stopped) as now:
        # By now all of them are judged.
        (ended,) = await now.until(lambda found: found and all(each.resolved_at for each in found))
        assert ended.reason.endswith("; the job was stopped")


async def test_the_incident_of_a_removed_job_ends_while_results_of_others_keep_coming(
    tmp_path: Path,
) -> None:
    jobs = [
        JobFacts(id=number, name="", url=f"https://{number}.example.org/", interval=1)
        for number in (1, 2)
    ]
    async with HttpReceiver() as receiver, running(tmp_path, webhook(receiver.url), *jobs) as now:
        await now.check((1, False), (1, False))
        await receiver.until(1)
        now.jobs.facts = {2: jobs[1]}

        async def others() -> None:
            while True:
                await now.check((2, False))  # which changes something each time

        def first(found: Sequence[Incident]) -> Incident:
            return next(each for each in found if each.subject == "1")

        going = asyncio.create_task(others())
        try:
            ended = first(await now.until(lambda found: first(found).resolved_at is not None))
            assert ended.reason.endswith("; the job was removed")
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)


@pytest.mark.integration_test
async def test_one_of_two_instances_sends_and_the_other_takes_over(
    tmp_path: Path, postgres_url: str
) -> None:
    database = DatabaseSettings(url=postgres_url)
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        async with (
            running(tmp_path / "one", config, database=database, me="one") as one,
            running(tmp_path / "two", config, database=database, me="two") as two,
        ):
            await until(lambda: one.part._notifier.leads or two.part._notifier.leads)
            leader, other = (one, two) if one.part._notifier.leads else (two, one)
            await other.check((1, False), (1, False))
            await receiver.until(1)
            assert not other.part._notifier.leads
            await leader.part.drain()
            await until(lambda: other.part._notifier.leads)
            await other.check((1, True))
            await receiver.until(2)
            assert receiver.events() == [("opened", "1"), ("resolved", "1")]


async def test_a_database_that_fails_for_a_while_loses_and_repeats_nothing(tmp_path: Path) -> None:
    async with HttpReceiver() as receiver, running(tmp_path, webhook(receiver.url)) as now:
        await now.check((1, False))
        # Another process holds the write lock for longer than anybody waits.
        other = sqlite3.connect(tmp_path / "monitor.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await now.check((1, False), (2, False))
        await until(lambda: now.part.state().health is Health.DEGRADED)
        other.execute("ROLLBACK")
        other.close()
        await now.check((2, False), (1, True))
        # Those of two jobs may come together.
        await until(lambda: len(receiver.events()) >= 3)
        assert sorted(receiver.events()) == [("opened", "1"), ("opened", "2"), ("resolved", "1")]
        await until(lambda: now.part.state().health is Health.OK)


@pytest.mark.integration_test
@pytest.mark.usefixtures("soon")
async def test_a_database_that_is_read_and_takes_no_rows_is_said_once_until_it_does(
    tmp_path: Path, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    database = DatabaseSettings(url=postgres_url)
    async with (
        HttpReceiver() as receiver,
        running(tmp_path, webhook(receiver.url), database=database) as now,
    ):
        await now.store.transaction(
            lambda c: c.execute(
                "CREATE SEQUENCE tried; CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN PERFORM nextval('tried'); RAISE 'not today'; END $$;"
                "CREATE TRIGGER no BEFORE INSERT ON alert_incident"
                " FOR EACH ROW EXECUTE FUNCTION no()"
            )
        )
        await now.check((1, False))
        await now.check((1, False))
        tried = 0
        async with asyncio.timeout(60):
            while tried < 5:
                ((tried,),) = await now.store.read(
                    lambda c: c.query("SELECT last_value FROM tried")
                )
                assert "judging resumed" not in caplog.text
                await asyncio.sleep(0.02)
        assert now.part.state().health is Health.DEGRADED
        assert "not today" in now.part.state().summary
        await now.store.transaction(lambda c: c.execute("DROP TRIGGER no ON alert_incident"))
        await until(lambda: receiver.events() == [("opened", "1")])
        await until(lambda: now.part.state().health is Health.OK)
    said = [line for line in caplog.messages if "judging paused" in line or "resumed" in line]
    assert len(said) == 2, said
