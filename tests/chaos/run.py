"""One run: set up, load, faults, settle, judge."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from monitor.alerts.schedule import LONGEST_S
from monitor.store import DatabaseSettings, open_store
from tests.aggregation import plain
from tests.aggregation.producers import whole_topic
from tests.chaos import invariants
from tests.chaos.faults import Faults
from tests.chaos.findings import Finding
from tests.chaos.peers import Peers
from tests.chaos.plan import WORLD_FAULTS, daemon_lanes, plan
from tests.chaos.probe_load import results_finding
from tests.chaos.service import Resources, resources
from tests.chaos.spool_tail import SpoolTail
from tests.chaos.stage import Stage
from tests.chaos.stored import last_offset, reached, records_of, result_of, spooled, topic_ids
from tests.waiting import wait_for

__all__ = ["Run"]

_WARM_S = 6.0
_SETTLE_S = 180.0
# The bus commits twice a second.
_LOOK_AGAIN_S = 1.0
_SENDERS = 10
_GROWTH_BYTES = 48_000_000
# Connections to servers that a pool made meanwhile and keeps.
_DESCRIPTORS = 16
# Of pools that grow to a bound where they are needed.
_THREADS = 8


class Run:
    """A run on a stage that is not yet set up; ``say`` gets what happens.

    With ``only_kill`` nothing but kill -9 happens to the daemons themselves, to each on its own and
    until the end.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        duration_s: float,
        say: Callable[[str], None],
        only_kill: bool = False,
    ) -> None:
        self._stage = stage
        self._duration_s = duration_s
        self._say = say
        self._only_kill = only_kill
        self.kills = 0
        """How often a daemon was killed."""
        self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=self._run_loop, name="load", daemon=True)
        self._before: dict[str, Resources] = {}
        self._tail: SpoolTail

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, Any], limit_s: float = 60.0) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(limit_s)

    def play(self) -> list[Finding]:
        """Do all of it and return what was found; the stage is left as it is then."""
        stage = self._stage
        began = time.monotonic()
        stage.start_servers()
        stage.prepare()
        stage.start_daemons()
        stage.make_loads()
        self._tail = SpoolTail(stage.services[0].state / "spool.db")
        for missing in stage.missing:
            self._say(f"  without: {missing}")
        self._say(
            f"  {len(stage.services)} daemons ready after {time.monotonic() - began:.1f} s; load on"
        )
        self._loop_thread.start()
        peers = Peers(stage)
        faults = Faults(stage, duration_s=self._duration_s, say=self._say)
        try:
            self._start_loads()
            peers.start()
            time.sleep(min(_WARM_S, self._duration_s / 3))  # the load alone, for this long
            stage.alerts.start()
            self._before = {service.name: resources(service.pid) for service in stage.services}
            self._play_faults(faults)
        finally:
            faults.stop.set()
            peers.stop()
        kills = {service.name: service.history.kills for service in stage.services}
        self.kills = sum(kills.values())
        self._say(f"  faults over: {dict(faults.count)}; hostile acts: {dict(peers.done)}")
        self._say(f"  kill -9 of daemons: {kills}")
        try:
            settled = self._settle()
            return [settled, *self._judge(faults)]
        finally:
            stage.relay.stop()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join(10)

    # Load and faults.

    def _start_loads(self) -> None:
        stage = self._stage

        async def start() -> None:
            stage.relay.start()
            stage.logs.start(senders=_SENDERS)

        self._call(start())
        wait_for(stage.begun, "the first lists of objects, and alerts", limit_s=_SETTLE_S)
        stage.cluster.start()
        if not stage.servers:
            self._tail.start()
        if stage.producers is not None:
            process = stage.services[0].process
            assert process is not None
            # The daemon makes the topic.
            wait_for(
                lambda: "assigned partitions" in process.stderr, "partitions", limit_s=_SETTLE_S
            )
            stage.producers.start()

    def _play_faults(self, faults: Faults) -> None:
        stage = self._stage
        targets = [service.name for service in stage.services]
        abilities = frozenset(stage.abilities)
        world = plan(stage.seed, self._duration_s, WORLD_FAULTS, abilities=abilities)
        lanes = daemon_lanes(
            stage.seed, self._duration_s, targets, abilities, only_kill=self._only_kill
        )
        began = time.monotonic()
        threads = [
            threading.Thread(target=faults.play, args=(lane, began), name="daemon-faults")
            for lane in lanes
        ]
        for thread in threads:
            thread.start()
        try:
            # Here, as PostgreSQL ends with the thread that started it.
            faults.play(world, began)
        finally:
            for thread in threads:
                thread.join()

    # Settling.

    def _settle(self) -> Finding:
        """Stop what is new, and wait until all that was begun is done."""
        stage = self._stage
        began = time.monotonic()
        problems = []
        for what, step in (
            ("the uploads", lambda: self._call(stage.logs.finish(_SETTLE_S), _SETTLE_S + 30)),
            ("the readers", lambda: self._call(stage.relay.finish(_SETTLE_S), _SETTLE_S + 30)),
            ("the cluster", self._settle_cluster),
            ("the alerts", self._settle_alerts),
            ("the results", self._settle_results),
            ("the daemons", self._settle_health),
        ):
            try:
                step()
            except Exception as error:  # noqa: BLE001 - the others are judged all the same
                problems.append(f"{what}: {type(error).__name__}: {str(error)[:800]}")
        took = time.monotonic() - began
        return Finding("everything settles", f"in {took:.1f} s", tuple(problems))

    def _settle_cluster(self) -> None:
        stage = self._stage
        wait_for(stage.cluster.settled, "every change told", limit_s=_SETTLE_S)
        stage.cluster.stop()
        wait_for(stage.cluster.settled, "every change told", limit_s=_SETTLE_S)
        wait_for(lambda: stage.tables.unforwarded() == 0, "events forwarded", limit_s=_SETTLE_S)

    def _settle_alerts(self) -> None:
        """Wait until every site is well again, and everybody has heard of it."""
        stage = self._stage
        stage.alerts.calm()
        seen = 0
        # A message that was refused again and again, since each start tries it again, waits long.
        until = time.monotonic() + _SETTLE_S + LONGEST_S
        while seen < 3:
            # Twice more: a result may still be on its way.
            pending = stage.tables.alerts_pending()
            seen = seen + 1 if pending == 0 else 0
            assert time.monotonic() < until, f"{pending} incidents and messages are pending"
            time.sleep(_LOOK_AGAIN_S)

    def _settle_results(self) -> None:
        stage = self._stage
        one = stage.services[0]
        # No new checks, so that there is an end.
        config = dict(one.config)
        config["probes"] = {"jobs": stage.jobs(active=False)}
        assert one.reload(config)
        wait_for(
            lambda: ", 0 open" in f", {self._summary(one.config, 'probes')}",
            "checks under way to end",
        )
        if stage.producers is not None:
            stage.producers.stop()
        # The last results may still be on their way to the disk: look until two looks, further
        # apart than the bus commits, see the same, and no check is missing that is owed.
        seen: dict[int, int] = {}
        until = time.monotonic() + _SETTLE_S
        while True:
            wanted = self._consumed()
            if wanted == seen and (self._checks().holds or time.monotonic() > until):
                return
            seen = wanted
            time.sleep(_LOOK_AGAIN_S)

    def _consumed(self) -> dict[int, int]:
        """Wait until what is published by now is consumed; return up to which offsets."""
        stage = self._stage
        spools = [service.state / "spool.db" for service in stage.services]
        if stage.servers:
            wait_for(
                lambda: all(spooled(spool) == 0 for spool in spools),
                "every spool to be forwarded",
                limit_s=_SETTLE_S,
            )
            wanted: dict[int, int] = {}
            for record in whole_topic(stage.bootstrap):
                wanted[record.partition] = record.offset + 1
        else:
            wanted = {0: last_offset(spools[0], plain.TOPIC) + 1}
        wait_for(
            lambda: reached(stage.tables.offsets(), wanted),
            f"results consumed up to {wanted}",
            limit_s=_SETTLE_S,
        )
        return wanted

    def _checks(self) -> Finding:
        stage = self._stage
        return results_finding(
            stage.probes.honest.served,
            stage.tables.statuses(below=101),
            ends=stage.services[0].history.ends,
        )

    def _settle_health(self) -> None:
        for service in self._stage.services:
            wait_for(lambda: self._healthy(service.config), "a healthy daemon", limit_s=90)  # noqa: B023

    def _healthy(self, config: dict[str, Any]) -> bool:
        with contextlib.suppress(requests.RequestException):
            answer = self._get(config, "/healthz")
            return answer.ok and answer.json()["status"] == "ok"
        return False

    def _summary(self, config: dict[str, Any], part: str) -> str:
        return str(self._get(config, "/healthz").json()["parts"][part]["summary"])

    def _get(self, config: dict[str, Any], path: str) -> requests.Response:
        return requests.get(
            f"http://127.0.0.1:{config['api']['uri'][1]}{path}",
            headers={"authorization": f"Bearer {self._stage.admin}"},
            timeout=10,
        )

    # Judging.

    def _judge(self, faults: Faults) -> list[Finding]:
        stage = self._stage
        found: list[Finding] = []
        steps: list[Callable[[], list[Finding]]] = [
            self._judge_relay,
            lambda: stage.logs.findings(stage.tables.log_texts()),
            self._judge_results,
            self._judge_alerts,
            self._judge_cluster,
            self._judge_resources,
            lambda: [self._judge_processes(faults)],
            lambda: [invariants.output_finding(stage.texts(), stage.secrets)],
        ]
        for step in steps:
            try:
                found += step()
            except Exception as error:  # noqa: BLE001 - the others are judged all the same
                problem = f"{type(error).__name__}: {str(error)[:800]}"
                found.append(Finding("could be judged", "", (problem,)))
        return found

    def _judge_relay(self) -> list[Finding]:
        relay = self._stage.relay
        relay.finish_all_again()
        read = {old.channel: self._history(old.channel) for old in relay.old}
        return relay.findings(relay.histories(read))

    def _history(self, channel: str) -> list[str]:
        """Read a channel's history, which has ended, as a late reader does."""
        texts: list[str] = []
        url = f"ws://127.0.0.1:{self._stage.websocket_port}/"
        with connect(url, compression=None, close_timeout=1) as connection:
            connection.send(channel)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    texts.append(str(connection.recv(timeout=20)))
        return texts

    def _judge_results(self) -> list[Finding]:
        stage = self._stage
        checks = self._checks()
        found = asyncio.run(self._read_tables())
        if stage.servers:
            expected = plain.plain_tables(whole_topic(stage.bootstrap))
            return [checks, invariants.tables_finding(found, expected, offsets=True)]
        # The spool keeps no more than it must: the raw results are what there is to count.
        expected = plain.plain_tables(records_of(stage.services[0].state / "monitor.db"))
        return [checks, invariants.tables_finding(found, expected, offsets=False)]

    def _judge_alerts(self) -> list[Finding]:
        stage = self._stage
        if stage.servers:
            results = [found for found in map(result_of, whole_topic(stage.bootstrap)) if found]
        else:
            self._tail.finish()
            results = self._tail.results
        # One of several takes over from one that loses the database, which ends nothing.
        ends = None if stage.servers else len(stage.services[-1].history.ends)
        return [stage.alerts.finding(results, stage.tables.alerts_sent(), ends=ends)]

    async def _read_tables(self) -> plain.Tables:
        stage = self._stage
        store = open_store(
            DatabaseSettings(url=stage.database_url)
            if stage.servers
            else DatabaseSettings(file=str(stage.services[0].state / "monitor.db"))
        )
        try:
            return await store.read(plain.read_tables)
        finally:
            await store.close()

    def _judge_cluster(self) -> list[Finding]:
        stage = self._stage
        ids = stage.tables.event_ids()
        found = [stage.cluster.finding(ids)]
        if stage.servers:
            found.append(invariants.forwarded_finding(ids, topic_ids(stage.bootstrap)))
        return found

    def _judge_resources(self) -> list[Finding]:
        """See what is left once nobody is there and no channel is kept."""
        stage = self._stage
        one = stage.services[0]
        config = dict(one.config)
        config["relay"] = {**config["relay"], "keep_finished": 1, "keep_idle": 1}
        assert one.reload(config)
        wait_for(
            lambda: "relay_channels 0.0" in self._get(one.config, "/metrics").text,
            "all channels gone",
            limit_s=60,
        )
        stage.relay.stop()
        return [
            invariants.resources_finding(
                service.name,
                self._before[service.name],
                resources(service.pid),
                growth_bytes=_GROWTH_BYTES,
                descriptors=_DESCRIPTORS,
                threads=_THREADS,
            )
            for service in stage.services
        ]

    def _judge_processes(self, faults: Faults) -> Finding:
        services = self._stage.services
        for service in services:
            status = service.close()
            if status != 0:
                service.history.problems.append(f"ended with status {status} in the end")
        return invariants.processes_finding(
            {service.name: len(service.history.ends) for service in services},
            {service.name: service.history.problems for service in services},
            faults.problems,
        )
