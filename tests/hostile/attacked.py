"""A daemon under attack, an honest job meanwhile, and what both cost."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from monitor.tokens import Role, create_token
from tests.hostile.attacks import ATTACKS, Attack
from tests.hostile.steady import Steady
from tests.ports import free_port
from tests.relay.broker import Broker
from tests.servers.daemon import ROOT, DaemonProcess

__all__ = ["Attacked", "Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack cost."""

    # s that the loop was late at most, and that 99 of 100 messages took at most
    late_s: float
    p99_s: float
    # resident bytes more than before, at most
    grown_bytes: int
    descriptors: int
    # what the attacker sent, how often it was closed, and the last bytes that it got then
    sent: int
    closed: int
    last: bytes
    lost: int


class Attacked:
    """A daemon with relay, logs and API."""

    def __init__(self, directory: Path) -> None:
        self.ports = {name: free_port() for name in ("relay", "zeromq", "api", "logs")}
        tokens = directory / "tokens.yml"
        self.tokens = {role: create_token(tokens, role, Role(role)) for role in Role}
        config = {
            "websocket_uri": ["127.0.0.1", self.ports["relay"]],
            "zeromq_uri": ["127.0.0.1", self.ports["zeromq"]],
            "relay": {},
            "logs": {"zeromq_uri": ["127.0.0.1", self.ports["logs"]]},
            "api": {"uri": ["127.0.0.1", self.ports["api"]], "tokens_file": str(tokens)},
        }
        self.daemon = DaemonProcess(directory, config, debug=False).wait_ready()
        broker = Broker(f"tcp://127.0.0.1:{self.ports['zeromq']}")
        # What an attacker may ask for again and again.
        for number in range(5000):
            broker.task("long", number)
        broker.close()

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        answer = requests.get(
            f"http://127.0.0.1:{self.ports['api']}/metrics",
            headers={"Authorization": f"Bearer {self.tokens[Role.ADMIN]}"},
            timeout=60,
        )
        found = re.findall(
            rf"^recodex_monitor_{name}(?:{{[^}}]*}})? (\S+)$", answer.text, re.MULTILINE
        )
        return sum(map(float, found))

    def resident_bytes(self) -> int:
        """Return the resident memory of the daemon."""
        status = Path(f"/proc/{self.daemon.pid}/smaps_rollup").read_text()
        found = re.search(r"Rss:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    def descriptors(self) -> int:
        """Return how many descriptors the daemon has open."""
        return len(list(Path(f"/proc/{self.daemon.pid}/fd").iterdir()))

    def suffer(self, attack: Attack | None, *, connections: int, seconds: float) -> Outcome:
        """Attack it for a while, or leave it alone; return what that cost."""
        grown, descriptors, late = 0, 0, 0.0
        before = self.resident_bytes()
        with Steady(self.ports["relay"], self.ports["zeromq"]) as steady:
            attacker = self._attacker(attack, connections, seconds)
            ended = False
            while not ended:
                try:
                    attacker.wait(0.1)
                    ended = True
                except subprocess.TimeoutExpired:
                    pass
                grown = max(grown, self.resident_bytes() - before)
                descriptors = max(descriptors, self.descriptors())
            late = self.metric("loop_lateness_max_seconds")
        said: dict[str, Any] = json.loads(attacker.communicate()[0] or "{}")
        assert not steady.problem, steady.problem
        return Outcome(
            late,
            steady.percentile(0.99),
            grown,
            descriptors,
            int(said.get("sent", 0)),
            int(said.get("closed", 0)),
            str(said.get("last", "")).encode("latin-1"),
            steady.sent - steady.received,
        )

    def healthy(self) -> bool:
        """Return whether an unknown client gets an answer."""
        with socket.create_connection(("127.0.0.1", self.ports["api"]), 60) as peer:
            peer.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return b" 200 " in peer.recv(100)

    def close(self) -> None:
        self.daemon.release()

    def _attacker(
        self, attack: Attack | None, connections: int, seconds: float
    ) -> subprocess.Popen[str]:
        if attack is None:
            command = [sys.executable, "-c", f"import time; time.sleep({seconds})"]
        else:
            command = [
                sys.executable,
                "-m",
                "tests.hostile.load",
                str(ATTACKS.index(attack)),
                str(self.ports[attack.listener]),
                str(connections),
                str(seconds),
                *([self.tokens[Role(attack.token)]] if attack.token else []),
            ]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
