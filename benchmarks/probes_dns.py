"""A name server that has one address for every name: ``python -m benchmarks.probes_dns PORT``."""

from __future__ import annotations

import socket
import sys

# A pointer to the name of the question, type A, class IN, 60 s, four bytes: 127.0.0.1.
_ANSWER = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01"


def main() -> None:
    """Answer until the process ends."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", int(sys.argv[1])))
        while True:
            query, peer = server.recvfrom(512)
            # The question ends after its name, type and class.
            end = query.find(b"\x00", 12) + 5
            head = query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
            server.sendto(head + query[12:end] + _ANSWER, peer)


if __name__ == "__main__":
    main()
