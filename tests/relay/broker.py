"""A broker as ReCodEx has it: a ZeroMQ peer that sends a job's messages."""

from __future__ import annotations

from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message


class Broker:
    """A DEALER that is connected before it sends."""

    def __init__(
        self, uri: str, *, prepare: Callable[[zmq.Socket[bytes]], None] = lambda socket: None
    ) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 5000)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.IPV6, 1)
        prepare(self.socket)
        monitor = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self.socket.connect(uri)
        assert monitor.poll(60_000), f"no relay at {uri}"
        self.refused = recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        self.socket.disable_monitor()
        monitor.close(0)

    def raw(self, frames: list[bytes]) -> None:
        self.socket.send_multipart(frames)

    def send(self, *frames: str) -> None:
        self.raw([frame.encode() for frame in frames])

    def task(self, channel: str, number: int, state: str = "COMPLETED") -> None:
        self.send(channel, "TASK", f"t{number}", state)

    def close(self) -> None:
        self.context.destroy(linger=0)
