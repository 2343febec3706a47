"""An attacker: `python -m tests.hostile.load NUMBER PORT CONNECTIONS SECONDS TOKEN`.

Keeps these connections busy, and connects again when one is closed. Prints how many bytes were
sent, how often it was closed, and the last thing that it got from a closed connection.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field

from tests.hostile.attacks import ATTACKS, Attack, welcomed

__all__: list[str] = []


@dataclass(slots=True)
class Peer:
    sock: socket.socket
    data: memoryview
    # What follows, once the other side has answered.
    first: bytes
    waits: bool
    got: bytes = b""


@dataclass(slots=True)
class Attacker:
    attack: Attack
    port: int
    token: str
    sent: int = 0
    closed: int = 0
    last: bytes = b""
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def connect(self) -> None:
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        hello = self.attack.hello
        if self.token:
            hello = hello.replace(
                b"\r\n\r\n", f"\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode(), 1
            )
        zmtp = self.attack.listener in ("zeromq", "logs")
        peer = Peer(sock, memoryview(hello), self.attack.first, waits=zmtp)
        self.selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)

    def run(self, connections: int, seconds: float) -> None:
        for _ in range(connections):
            self.connect()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, events in self.selector.select(0.1):
                peer: Peer = key.data
                try:
                    if events & selectors.EVENT_READ:
                        got = peer.sock.recv(65536)
                        peer.got = (peer.got + got)[-600:]
                        if not got:
                            raise ConnectionResetError
                    if events & selectors.EVENT_WRITE:
                        if not peer.data:
                            if peer.waits and not welcomed(peer.got):
                                continue
                            peer.data = memoryview(peer.first or self.attack.again)
                            peer.waits, peer.first = False, b""
                        if not peer.data:
                            raise ConnectionResetError
                        sent = peer.sock.send(peer.data[: self.attack.piece_bytes])
                        peer.data = peer.data[sent:]
                        self.sent += sent
                except BlockingIOError:
                    continue
                except OSError:
                    self.closed += 1
                    self.last = peer.got
                    self.selector.unregister(peer.sock)
                    peer.sock.close()
                    with contextlib.suppress(OSError):
                        self.connect()


def main() -> None:
    number, port, connections, seconds, token = (*sys.argv[1:], "")[:5]
    attacker = Attacker(ATTACKS[int(number)], int(port), token)
    attacker.run(int(connections), float(seconds))
    print(  # noqa: T201
        json.dumps(
            {
                "sent": attacker.sent,
                "closed": attacker.closed,
                "last": attacker.last.decode("latin-1"),
            }
        )
    )


if __name__ == "__main__":
    main()
