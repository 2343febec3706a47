"""The loads of relay_recovery, each a process of its own, on its own core.

Usage: ``relay_recovery_loads.py LOAD PROTOCOL --pid PID --ports WEBSOCKET ZEROMQ``; prints one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.process import cpu_seconds, raise_descriptors
from benchmarks.relay_recovery_load import AT_ONCE_S, Load
from benchmarks.relay_recovery_readers import OLD, RECOVERING, Channel, Subscriber
from benchmarks.relay_streams import StreamError

__all__ = ["LOADS"]

Result = dict[str, float]


def measured(
    load: Load, subscribers: Sequence[Subscriber], target: int, act: Callable[[], None]
) -> Result:
    """Return the daemon's CPU until all subscribers have ``target`` messages."""
    load.rest()
    before, had = cpu_seconds(load.pid), sum(one.seq for one in subscribers)
    act()
    load.until(lambda: all(one.seq >= target for one in subscribers))
    deliveries = sum(one.seq for one in subscribers) - had
    return {"cpu_s": cpu_seconds(load.pid) - before, "deliveries": deliveries}


def prepared(load: Load, protocol: str, channels: Sequence[Channel], each: int) -> list[Subscriber]:
    """Subscribe, with one message through each channel."""
    load.publish(b"".join(channel.published[0] for channel in channels))
    subscribers = [Subscriber(channel, protocol) for channel in channels for _ in range(each)]
    load.subscribe(subscribers, 1)
    return subscribers


def jobs(load: Load, protocol: str) -> Result:
    """1000 channels, a subscriber each, 200 messages as fast as they are taken."""
    channels = [Channel(number, 201) for number in range(1000)]
    subscribers = prepared(load, protocol, channels, 1)
    burst = b"".join(channel.published[i] for i in range(1, 201) for channel in channels)
    return measured(load, subscribers, 201, lambda: load.publish(burst))


def fan_out(load: Load, protocol: str) -> Result:
    """One channel, 1000 subscribers, 100 messages/s for 5 s."""
    channel = Channel(0, 501)
    subscribers = prepared(load, protocol, [channel], 1000)

    def act() -> None:
        began = time.perf_counter()
        for index in range(500):
            while time.perf_counter() - began < index / 100:
                load.turn(0.0005)
            load.publish(channel.published[index + 1])

    return measured(load, subscribers, 501, act)


def replay(load: Load, protocol: str) -> Result:
    """2000 messages in the history, 100 subscribers that come late; handshakes included."""
    channel = Channel(0, 2000)
    first = prepared(load, protocol, [channel], 1)
    load.publish(b"".join(channel.published[1:]))
    load.until(lambda: first[0].seq == 2000)
    late = [Subscriber(channel, protocol) for _ in range(100)]

    def act() -> None:
        for one in late:
            load.connect(one)

    return measured(load, late, 2000, act)


def steady(load: Load, protocol: str) -> Result:
    """1000 messages/s, in turn over 100 channels with a subscriber each, for 5 s."""
    channels = [Channel(number, 51) for number in range(100)]
    subscribers = prepared(load, protocol, channels, 1)

    def act() -> None:
        began = time.perf_counter()
        for index in range(5000):
            while time.perf_counter() - began < index / 1000:
                load.turn()
            load.publish(channels[index % 100].published[1 + index // 100])

    return measured(load, subscribers, 51, act)


def lost(load: Load, protocol: str) -> Result:
    """10,000 subscribers of 1000 channels lose the connection at once, and resume."""
    channels = [Channel(number, 30) for number in range(1000)]
    subscribers = prepared(load, protocol, channels, 10)
    for index in range(1, 20):
        load.publish(b"".join(channel.published[index] for channel in channels))
    load.until(lambda: all(one.seq >= 20 for one in subscribers))
    load.rest()
    cpu, began = cpu_seconds(load.pid), time.perf_counter()
    for one in subscribers:
        load.lose(one, AT_ONCE_S)
    # What is said while nobody listens.
    load.publish(b"".join(c.published[i] for i in range(20, 30) for c in channels))
    waiting = set(subscribers)

    def all_complete() -> bool:
        now = time.perf_counter()
        for one in [one for one in waiting if one.seq >= 30]:
            one.complete_at = now - began
            waiting.discard(one)
        return not waiting

    while not all_complete():
        for _ in range(20):
            load.turn(0.001)
        if time.perf_counter() - began > 60:
            raise StreamError(f"{len(waiting)} are not resumed after a minute")
    times = sorted(one.complete_at for one in subscribers)
    return {
        "p50_s": times[len(times) // 2],
        "p99_s": times[len(times) * 99 // 100],
        "all_s": times[-1],
        "refused": load.refusals,
        "cpu_s": cpu_seconds(load.pid) - cpu,
        "deliveries": 10 * len(subscribers),
    }


LOADS = {"jobs": jobs, "fan-out": fan_out, "replay": replay, "steady": steady, "lost": lost}


def run() -> None:
    """Read the command line, put one load on the daemon, print what it cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("protocol", choices=(OLD, RECOVERING))
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--ports", type=int, nargs=2, required=True)
    arguments = parser.parse_args()
    raise_descriptors()
    load = Load(arguments.pid, *arguments.ports)
    try:
        result = LOADS[arguments.load](load, arguments.protocol)
    except (StreamError, OSError) as error:
        raise SystemExit(f"relay_recovery_loads: {error}") from error
    print(json.dumps(result))


if __name__ == "__main__":
    run()
