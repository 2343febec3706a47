"""The loads of relay_recovery, each a process of its own, on its own core.

Usage: ``relay_recovery_loads.py LOAD --pid PID --ports WEBSOCKET ZEROMQ``; prints one line of
JSON. All but ``lost`` put the load on the same daemon with either protocol in turn, with new
channels and connections each time, until each has cost ``--cpu`` seconds.
"""

from __future__ import annotations

import argparse
import itertools
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
    """Return the daemon's CPU until all subscribers have ``target`` messages; they leave then."""
    load.rest()
    before, had = cpu_seconds(load.pid), sum(one.seq for one in subscribers)
    act()
    load.until(lambda: all(one.seq >= target for one in subscribers))
    deliveries = sum(one.seq for one in subscribers) - had
    result = {"cpu_s": cpu_seconds(load.pid) - before, "deliveries": deliveries}
    load.part(subscribers)
    return result


# No two turns have a channel in common.
_numbers = itertools.count()


def new_channels(count: int, messages: int) -> list[Channel]:
    """Return channels that the daemon does not know."""
    return [Channel(next(_numbers), messages) for _ in range(count)]


def prepared(load: Load, protocol: str, channels: Sequence[Channel], each: int) -> list[Subscriber]:
    """Subscribe, with one message through each channel."""
    load.publish(b"".join(channel.published[0] for channel in channels))
    subscribers = [Subscriber(channel, protocol) for channel in channels for _ in range(each)]
    load.subscribe(subscribers, 1)
    return subscribers


def jobs(load: Load, protocol: str) -> Result:
    """1000 channels, a subscriber each, 200 messages as fast as they are taken."""
    channels = new_channels(1000, 201)
    subscribers = prepared(load, protocol, channels, 1)
    burst = b"".join(channel.published[i] for i in range(1, 201) for channel in channels)
    return measured(load, subscribers, 201, lambda: load.publish(burst))


def fan_out(load: Load, protocol: str) -> Result:
    """One channel, 1000 subscribers, 100 messages/s for 5 s."""
    channels = new_channels(1, 501)
    subscribers = prepared(load, protocol, channels, 1000)

    def act() -> None:
        began = time.perf_counter()
        for index in range(500):
            while time.perf_counter() - began < index / 100:
                load.turn(0.0005)
            load.publish(channels[0].published[index + 1])

    return measured(load, subscribers, 501, act)


def replay(load: Load, protocol: str) -> Result:
    """Five channels with 2000 messages that nobody read; 100 who are connected name each."""
    channels = new_channels(5, 2000)
    load.publish(b"".join(b"".join(channel.published) for channel in channels))
    late = [Subscriber(channel, protocol) for channel in channels for _ in range(100)]
    load.open(late)

    def act() -> None:
        for one in late:
            load.name(one)

    return measured(load, late, 2000, act)


def steady(load: Load, protocol: str) -> Result:
    """1000 messages/s, in turn over 100 channels with a subscriber each, for 5 s."""
    channels = new_channels(100, 51)
    subscribers = prepared(load, protocol, channels, 1)

    def act() -> None:
        began = time.perf_counter()
        for index in range(5000):
            while time.perf_counter() - began < index / 1000:
                load.turn()
            load.publish(channels[index % 100].published[1 + index // 100])

    return measured(load, subscribers, 51, act)


def lost(load: Load) -> Result:
    """10,000 subscribers of 1000 channels lose the connection at once, and resume."""
    channels = new_channels(1000, 30)
    subscribers = prepared(load, RECOVERING, channels, 10)
    for index in range(1, 20):
        load.publish(b"".join(channel.published[index] for channel in channels))
    load.until(lambda: all(one.seq >= 20 for one in subscribers))
    load.rest()
    cpu, began = cpu_seconds(load.pid), time.perf_counter()
    for one in subscribers:
        load.lose(one, AT_ONCE_S)
    # Messages while nobody listens.
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


LOADS = {"jobs": jobs, "fan-out": fan_out, "replay": replay, "steady": steady}


def in_turn(
    load: Load, act: Callable[[Load, str], Result], *, turns: int, cpu_s: float
) -> dict[str, list[Result]]:
    """Return what each turn of each protocol cost: this many turns, and this much CPU, at least."""
    results: dict[str, list[Result]] = {OLD: [], RECOVERING: []}
    order = [OLD, RECOVERING]
    while len(results[OLD]) < turns or any(
        sum(result["cpu_s"] for result in found) < cpu_s for found in results.values()
    ):
        for protocol in order:
            results[protocol].append(act(load, protocol))
        order.reverse()
    return results


def run() -> None:
    """Read the command line, put one load on the daemon, print what it cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("load", choices=[*LOADS, "lost"])
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--ports", type=int, nargs=2, required=True)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--cpu", type=float, default=1.0, help="s of each protocol, at least")
    arguments = parser.parse_args()
    raise_descriptors()
    load = Load(arguments.pid, *arguments.ports)
    try:
        if arguments.load == "lost":
            print(json.dumps(lost(load)))
        else:
            act = LOADS[arguments.load]
            print(json.dumps(in_turn(load, act, turns=arguments.turns, cpu_s=arguments.cpu)))
    except (StreamError, OSError) as error:
        raise SystemExit(f"relay_recovery_loads: {error}") from error


if __name__ == "__main__":
    run()
