"""Sites that are checked: honest ones that count, and ones that lie however they can.

An honest site gives each request a status of its own, in turn, so that the results
distinguish every check, whatever the clocks say.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.findings import Finding
from tests.probes.misbehaving import Misbehaving, answer

__all__ = ["CountingSite", "ProbeLoad", "is_due", "results_finding"]

_HONEST, _LIARS_FROM = 12, 101
_FIRST_STATUS, _STATUSES = 400, 200
_LIES = (
    "silent", "drip", "reset", "empty", "garbage", "short", "broken-gzip", "bomb",
    "endless", "headers", "upgrade", "latin1", "redirect/30", "status/503", "status/204",
)  # fmt: skip
# A result is on the disk this long after its check, where nothing is in the way.
_COMMIT_S = 2.0
_BEFORE_S = 1.0


class CountingSite(Misbehaving):
    """Knows when it answered which request: /job/N."""

    def __init__(self) -> None:
        self.served: dict[int, list[float]] = {}
        self._lock = threading.Lock()
        super().__init__()

    def _do_job(self, connection: socket.socket, argument: str) -> None:
        with self._lock:
            times = self.served.setdefault(int(argument.partition("?")[0]), [])
            status = status_of(len(times))
            times.append(time.monotonic())
        connection.sendall(answer(status))


def status_of(number: int) -> int:
    """Return the status that a site answers its request with this number with."""
    return _FIRST_STATUS + number % _STATUSES


class ProbeLoad:
    """The sites, the jobs that check them, and what must have come of that."""

    def __init__(self, *, secret: str, interval_s: float = 0.5) -> None:
        self.honest = CountingSite()
        self.liar = Misbehaving()
        self._secret = secret
        self._interval_s = interval_s

    def jobs(self, *, active: bool = True) -> list[dict[str, Any]]:
        """Return the config's jobs."""
        shared: dict[str, Any] = {"active": active}
        honest = [
            {
                "id": number,
                "url": self.honest.url(f"/job/{number}?token={self._secret}"),
                "interval": self._interval_s,
                "timeout": 5,
                "expected_status": [f"{_FIRST_STATUS}-{_FIRST_STATUS + _STATUSES - 1}"],
                "headers": {"x-key": self._secret},
                **shared,
            }
            for number in range(1, _HONEST + 1)
        ]
        liars = [
            {
                "id": _LIARS_FROM + number,
                "url": self.liar.url(f"/{path}"),
                "interval": 2,
                "timeout": 1,
                **shared,
            }
            for number, path in enumerate(_LIES)
        ]
        others = [
            {"id": 201, "kind": "tcp", "url": f"tcp://127.0.0.1:{self.liar.port}"},
            {"id": 202, "kind": "tcp", "url": "tcp://127.0.0.1:9"},
            {"id": 203, "kind": "websocket", "url": f"ws://127.0.0.1:{self.liar.port}/garbage"},
        ]
        return [
            *honest,
            *liars,
            *({**job, "interval": 1, "timeout": 1, **shared} for job in others),
        ]

    def close(self) -> None:
        self.honest.close()
        self.liar.close()


def is_due(at: float, *, ends: Sequence[float], bad: Sequence[tuple[float, float]]) -> bool:
    """Tell whether a check that was answered at ``at`` must be among the results.

    It must if the daemon was running from before it until the result was on the disk.
    """
    first, last = at - _BEFORE_S, at + _COMMIT_S
    return not any(first <= end <= last for end in ends) and not any(
        begun <= last and over >= first for begun, over in bad
    )


def results_finding(
    served: Mapping[int, Sequence[float]],
    stored: Mapping[int, Counter[int]],
    *,
    ends: Sequence[float],
    bad: Sequence[tuple[float, float]],
) -> Finding:
    """Compare requests served with results stored, for each job by status."""
    problems: list[str] = []
    owed_total = served_total = stored_total = 0
    for job, times in sorted(served.items()):
        owed = Counter(
            status_of(number) for number, at in enumerate(times) if is_due(at, ends=ends, bad=bad)
        )
        most = Counter(status_of(number) for number in range(len(times)))
        found = stored.get(job, Counter())
        owed_total += owed.total()
        served_total += len(times)
        stored_total += found.total()
        problems += [
            f"job {job}: {missing} of status {status} lost"
            for status, missing in sorted((owed - found).items())
        ]
        problems += [
            f"job {job}: {more} of status {status} too many"
            for status, more in sorted((found - most).items())
        ]
    return Finding(
        "checks made well before a fault are raw rows, each once",
        f"{served_total} checks served, {owed_total} of them owed, {stored_total} stored",
        tuple(problems),
    )
