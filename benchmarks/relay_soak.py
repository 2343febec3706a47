"""Open and close 20,000 clients and 20,000 channels, and see what memory that leaves behind.

A quarter of the clients each: sees its job to the end; leaves a running job; leaves a
channel without any message; vanishes without a word. All channels are finished at
the end, and their keep time is a second, so that nothing is left that should be kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.process import free_ports, raise_descriptors, resident_bytes, running
from benchmarks.relay_load import Load
from benchmarks.relay_sides import Ports, config_of
from benchmarks.relay_streams import Channel, Subscriber

__all__ = ["main"]

MESSAGES = 20


def wave(load: Load, first: int, count: int) -> None:
    """Let this many clients come and go, each with a channel of its own."""
    channels = [Channel(first + i, MESSAGES) for i in range(count)]
    subscribers = [Subscriber(channel) for channel in channels]
    load.connect(subscribers)
    spoken = [one for i, one in enumerate(subscribers) if i % 4 != 2]
    load.publish(b"".join(b"".join(one.channel.published[:-1]) for one in spoken))
    for one in spoken:
        load.expect(one, MESSAGES)
    load.run()
    for i, one in enumerate(subscribers):
        if i % 4:
            load.leave(one, politely=i % 4 != 3)
    load.finish(one.channel for one in spoken)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=1000)
    arguments = parser.parse_args()
    raise_descriptors()
    with tempfile.TemporaryDirectory(prefix="relay-soak-") as name:
        directory, ports = Path(name), Ports(*free_ports(2))
        config = config_of(directory, ports, keep_finished=1)
        program = str(Path(__file__).parent.parent / "main.py")
        with running(
            [sys.executable, program, "-c", str(config)],
            directory=directory,
            environment={"STATE_DIRECTORY": name},
        ) as server:
            load = Load(server.pid, ports.websocket, ports.publish, compression=True)
            waves = arguments.clients // arguments.at_once
            print(f"fresh: {resident_bytes(server.pid) / 1e6:.1f} MB resident")
            for number in range(waves):
                wave(load, number * arguments.at_once, arguments.at_once)
                if number + 1 in {1, max(waves // 2, 1), waves}:
                    time.sleep(3)  # the channels' keep time, and the sweep each second
                    load.rest(0.01)
                    gone = (number + 1) * arguments.at_once
                    print(
                        f"after {gone} clients and channels: "
                        f"{resident_bytes(server.pid) / 1e6:.1f} MB",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
