"""Sites that go up and down, the receivers of alerts about them, and what must have come of it.

The receivers write down what they took, in this process, which nothing breaks. What incidents
there must be follows from the results alone.
"""

from __future__ import annotations

import json
import random
import socket
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.chaos.findings import Finding
from tests.chaos.probe_load import ENDLESS_S
from tests.probes.misbehaving import Misbehaving, answer

__all__ = ["AlertLoad", "Sent", "Took", "alerts_finding", "openings"]

_FIRST_JOB, _JOBS = 301, 6
_INTERVAL_S = 0.5
# From one message to the next, how often a receiver in trouble does each.
_MOODS = {"accept": 6, "refuse": 1, "fail": 2, "hang-up": 1, "accept-in-silence": 1, "dawdle": 1}
_DAWDLE_S = 3.0
_RECEIVERS = ("troubled", "steady")


class Took(NamedTuple):
    """A message that reached a receiver, and whether it was accepted."""

    delivery: str
    event: str
    incidents: tuple[str, ...]
    accepted: bool


class Sent(NamedTuple):
    """A row of the daemons' tables: an event of an incident, for a receiver."""

    incident: str
    job: int
    opened_at: float
    receiver: str | None
    event: str | None


class _Sites(Misbehaving):
    """Answers 200 until it is let loose, and then 200 or 503 as chance has it."""

    def __init__(self, seed: int) -> None:
        self.loose = threading.Event()
        self._chance = random.Random(seed)
        super().__init__()

    def _do_switch(self, connection: socket.socket, argument: str) -> None:
        up = not self.loose.is_set() or self._chance.random() < 0.7
        connection.sendall(answer(200 if up else 503))


class _Receiver:
    """An HTTP server that notes every message."""

    def __init__(self, seed: int | None) -> None:
        self.took: list[Took] = []
        self.chance = None if seed is None else random.Random(seed)
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                mood = outer.mood()
                if mood == "dawdle":
                    outer.ended.wait(_DAWDLE_S)
                accepted = mood in ("accept", "accept-in-silence", "dawdle")
                ids = tuple(each["id"] for each in body["incidents"])
                outer.took.append(Took(body["delivery"], body["event"], ids, accepted))
                if mood in ("hang-up", "accept-in-silence"):
                    self.close_connection = True
                    return
                self.send_response(200 if accepted else 500 if mood == "fail" else 400)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver")
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def mood(self) -> str:
        if self.chance is None:
            return "accept"
        return self.chance.choices(list(_MOODS), list(_MOODS.values()))[0]

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class AlertLoad:
    """The sites, the receivers, and the sections of the config for them."""

    def __init__(self, seed: int) -> None:
        self._sites = _Sites(seed)
        self._receivers = {
            name: _Receiver(seed if name == "troubled" else None) for name in _RECEIVERS
        }

    def jobs(self, *, active: bool = True) -> list[dict[str, Any]]:
        """Return the config's jobs."""
        return [
            {
                "id": number,
                "url": self._sites.url(f"/switch/{number}"),
                "interval": _INTERVAL_S,
                "timeout": ENDLESS_S,
                "active": active,
            }
            for number in range(_FIRST_JOB, _FIRST_JOB + _JOBS)
        ]

    def config(self) -> dict[str, Any]:
        """Return the section ``alerts``: each failed result after a good one is an incident."""
        jobs = list(range(_FIRST_JOB, _FIRST_JOB + _JOBS))
        return {
            "group_wait": 0.5,
            "flapping": 1_000_000,
            "receivers": [
                {"name": name, "webhook": receiver.url}
                for name, receiver in self._receivers.items()
            ],
            "rules": [
                {
                    "name": "site down",
                    "watch": "site",
                    "failures": 1,
                    "match": {"jobs": jobs},
                    "receivers": list(_RECEIVERS),
                }
            ],
        }

    def start(self) -> None:
        """Let the sites fail."""
        self._sites.loose.set()

    def calm(self) -> None:
        """Let no site fail, and every receiver accept everything."""
        self._sites.loose.clear()
        for receiver in self._receivers.values():
            receiver.chance = None

    def finding(
        self, results: Iterable[Mapping[str, Any]], sent: Sequence[Sent], *, ends: int | None
    ) -> Finding:
        """Judge by the results, in the order of the bus, and by what the receivers took.

        ``ends`` is how often the only process that sends has ended; None if there are several.
        """
        took = {name: list(receiver.took) for name, receiver in self._receivers.items()}
        most_again = {} if ends is None else {"steady": ends}
        return alerts_finding(openings(results), sent, took, most_again=most_again)

    def close(self) -> None:
        self._sites.close()
        for receiver in self._receivers.values():
            receiver.close()


def openings(results: Iterable[Mapping[str, Any]]) -> dict[int, set[float]]:
    """Return by job the results that open an incident: the first failed one after a good one."""
    found: dict[int, set[float]] = defaultdict(set)
    last: dict[int, bool] = {}
    known: set[tuple[int, float]] = set()
    for result in results:
        job, run = result["job_id"], (result["job_id"], result["scheduled_at"])
        if not _FIRST_JOB <= job < _FIRST_JOB + _JOBS or run in known:
            continue
        known.add(run)
        if last.get(job, True) and not result["up"]:
            found[job].add(result["checked_at"])
        last[job] = bool(result["up"])
    return found


def alerts_finding(
    due: Mapping[int, set[float]],
    sent: Sequence[Sent],
    took: Mapping[str, Sequence[Took]],
    *,
    most_again: Mapping[str, int],
) -> Finding:
    """Compare incidents with the results, and what was sent of them with what was received.

    A receiver that answers each message may get ``most_again`` of them twice: one for each end of
    the process that sent it and could not note the answer.
    """
    problems: list[str] = []
    found: dict[int, set[float]] = defaultdict(set)
    owed: dict[str, set[tuple[str, str]]] = defaultdict(set)
    incidents = set()
    for each in sent:
        found[each.job].add(each.opened_at)
        incidents.add(each.incident)
        if each.receiver is None:
            problems.append(f"incident {each.incident} of job {each.job} was sent to nobody")
        elif each.event is not None:
            owed[each.receiver].add((each.incident, each.event))
    for job in sorted(due.keys() | found.keys()):
        problems += [
            f"job {job}: no incident at {at}" for at in sorted(due.get(job, set()) - found[job])
        ]
        problems += [
            f"job {job}: an incident at {at} without a cause"
            for at in sorted(found[job] - due.get(job, set()))
        ]
    messages = again = 0
    for receiver in sorted(owed.keys() | took.keys()):
        arrived: set[tuple[str, str]] = set()
        accepted = [message.delivery for message in took.get(receiver, ()) if message.accepted]
        repeats = len(accepted) - len(set(accepted))
        again += repeats
        if repeats > most_again.get(receiver, repeats):
            problems.append(
                f"{receiver} accepted {repeats} messages again, for {most_again[receiver]} ends"
            )
        deliveries: dict[tuple[str, str], set[str]] = defaultdict(set)
        for message in took.get(receiver, ()):
            messages += 1
            for incident in message.incidents:
                deliveries[incident, message.event].add(message.delivery)
                if message.accepted:
                    arrived.add((incident, message.event))
        problems += [
            f"{receiver} never got {event} of {incident}"
            for incident, event in sorted(owed[receiver] - arrived)
        ]
        problems += [
            f"{receiver} got {event} of {incident} as {len(ids)} messages"
            for (incident, event), ids in sorted(deliveries.items())
            if len(ids) > 1
        ]
        ends = {incident for incident, event in owed[receiver] if event == "resolved"}
        problems += [f"{receiver} never hears the end of {each}" for each in incidents - ends]
    return Finding(
        "each incident that the results demand is sent, and each event reaches each receiver",
        f"{len(incidents)} incidents, {messages} messages, {again} accepted again",
        tuple(problems),
    )
