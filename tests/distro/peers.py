"""The daemon as installed in a machine, and its peers outside: a broker, a subscriber."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import websockets.sync.client
import yaml
import zmq

from tests.servers.debian import Machine
from tests.waiting import wait_for

UNIT = "recodex-monitor.service"
CONFIG = "/etc/recodex/monitor/config.yml"
LOG = "/var/log/recodex/monitor.log"
STATE = "/var/lib/recodex-monitor"
WEBSOCKET_PORT = 4567
ZEROMQ_PORT = 7894
# The default addresses, but reachable from outside the machine.
OPEN = {"websocket_uri": ["0.0.0.0", WEBSOCKET_PORT], "zeromq_uri": ["0.0.0.0", ZEROMQ_PORT]}


class Installed:
    """The daemon in a machine, steered by systemctl and its config as an operator does."""

    def __init__(self, debian: Machine) -> None:
        self.debian = debian

    def configure(self, config: Mapping[str, Any] | str) -> None:
        """Write the config; a mapping gets reachable addresses and the log."""
        if not isinstance(config, str):
            config = yaml.safe_dump({**OPEN, "logger": {"file": LOG}, **config}, sort_keys=False)
        self.debian.write(CONFIG, config)

    def restart(self) -> None:
        """Restart the unit and forget how often it was started before."""
        self.debian.run("systemctl", "reset-failed", UNIT, check=False)
        self.debian.run("systemctl", "restart", UNIT)
        self.wait_active()

    def state(self) -> str:
        """Return the unit's state: active, failed, ..."""
        return self.debian.run("systemctl", "is-active", UNIT, check=False).stdout.strip()

    def wait_active(self) -> None:
        """Wait until the daemon serves."""
        wait_for(lambda: self.state() == "active", f"{UNIT} active; {self.tail()}")

    def tail(self) -> str:
        """Return the journal's last lines, for a failed test's message."""
        return self.debian.journal(UNIT)[-1500:]

    def main_pid(self) -> int:
        """Return the daemon's process id as the machine has it."""
        return int(self.debian.show(UNIT, "MainPID"))

    def restarts(self) -> int:
        """Return how often systemd has restarted the unit by itself."""
        return int(self.debian.show(UNIT, "NRestarts"))

    def relays(self, channel: str, *, tls: ssl.SSLContext | None = None, host: str = "") -> bool:
        """Tell whether a broker's message reaches a subscriber; both are outside the machine."""
        with (
            self.subscriber(channel, tls=tls, host=host) as subscriber,
            self.broker() as broker,
        ):
            send(broker, channel, "TASK", "t1", "COMPLETED")
            got: object = json.loads(subscriber.recv(timeout=10))
            return got == {
                "command": "TASK",
                "task_id": "t1",
                "task_state": "COMPLETED",
            }

    @contextlib.contextmanager
    def subscriber(
        self, channel: str, *, tls: ssl.SSLContext | None = None, host: str = ""
    ) -> Iterator[websockets.sync.client.ClientConnection]:
        """Connect to the machine's WebSocket and name the channel."""
        scheme = "ws" if tls is None else "wss"
        name = host or self.debian.address
        sock = None
        if host:
            import socket

            sock = socket.create_connection((self.debian.address, WEBSOCKET_PORT), timeout=10)
        with websockets.sync.client.connect(
            f"{scheme}://{name}:{WEBSOCKET_PORT}/", ssl=tls, sock=sock, open_timeout=10
        ) as connection:
            connection.send(channel)
            yield connection

    @contextlib.contextmanager
    def broker(
        self, curve: tuple[bytes, bytes, bytes] | None = None
    ) -> Iterator[zmq.Socket[bytes]]:
        """Connect a broker's socket; ``curve`` is its public and secret key and the server's."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
            peer.linger = 5000
            if curve is not None:
                peer.curve_publickey, peer.curve_secretkey, peer.curve_serverkey = curve
            peer.connect(f"tcp://{self.debian.address}:{ZEROMQ_PORT}")
            yield peer


def send(broker: zmq.Socket[bytes], *frames: str) -> None:
    """Send a message: channel, command, and for TASK the task's id and state."""
    broker.send_multipart([frame.encode() for frame in frames])
