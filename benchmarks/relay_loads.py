"""The loads that the relay benchmarks put on a server: each a process of its own, on its own core.

Usage: ``relay_loads.py LOAD --pid PID --websocket-port P --publish-port P``; prints
one line of JSON. CPU and memory are those of the server, process PID, between the first
message that counts and the last one received.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.process import raise_descriptors, resident_bytes
from benchmarks.relay_dialects import DIALECTS
from benchmarks.relay_load import Load, Result
from benchmarks.relay_streams import Channel, StreamError, Subscriber

__all__ = ["LOADS"]

# The loads. Each returns its result; the counts are the ones that the figures stand for.


def start(load: Load, channels: Iterable[Channel], each: int) -> None:
    """Subscribe, and let one message through each channel, so that all stands and is warm."""
    channels = list(channels)
    subscribers = [Subscriber(channel) for channel in channels for _ in range(each)]
    load.connect(subscribers)
    for one in subscribers:
        load.expect(one, 1)
    load.publish(load.dialect.joined(channel.published[0] for channel in channels))
    load.run()
    for one in subscribers:
        one.count = 1
        load.expect(one, len(one.ends) - 1)


def percentiles(load: Load, total: int) -> Result:
    """Return what the latencies of this many deliveries come to."""
    ordered = sorted(load.latencies)
    assert len(ordered) == total
    return {
        "p50_s": ordered[total // 2],
        "p99_s": ordered[total * 99 // 100],
        "max_s": ordered[-1],
    }


def jobs(load: Load, *, count: int = 1000, messages: int = 200) -> Result:
    """Many jobs at once, as fast as the server takes them, one subscriber each, interleaved."""
    channels = [Channel(i, messages + 1, load.dialect) for i in range(count)]
    start(load, channels, 1)
    load.rest()
    burst = load.dialect.joined(c.published[i] for i in range(1, messages + 1) for c in channels)
    load.mark()
    load.publish(burst)
    load.run()
    load.mark()
    resident = resident_bytes(load.pid)
    load.finish(channels)
    return load.result(count * messages, resident_bytes=resident)


def fan_out(
    load: Load, *, subscribers: int = 1000, rate: int = 100, seconds: float = 5.0
) -> Result:
    """One channel with many subscribers, a message every 10 ms."""
    messages = int(rate * seconds)
    channel = Channel(0, messages + 1, load.dialect)
    start(load, [channel], subscribers)
    load.rest()
    channel.sent_at = [0.0]  # the first message is through
    order = [load.dialect.joined([one]) for one in channel.published[1 : messages + 1]]
    load.mark()
    load.run(((i / rate, channel, data) for i, data in enumerate(order)), latencies=True)
    load.mark()
    load.finish([channel])
    return load.result(subscribers * messages, **percentiles(load, subscribers * messages))


def fan_out_300(load: Load) -> Result:
    """The same with fewer subscribers, so that the load reads them in less time than there is."""
    return fan_out(load, subscribers=300)


def replay(load: Load, *, subscribers: int = 100, messages: int = 2000) -> Result:
    """Late subscribers to a channel with a long history; their handshakes are not counted."""
    load.read_size = 65536
    channel = Channel(0, messages, load.dialect)
    start(load, [channel], 1)
    load.publish(load.dialect.joined(channel.published[1:-1]))
    load.run()
    late = [Subscriber(channel) for _ in range(subscribers)]
    if not load.dialect.by_path:
        load.connect(late, subscribe=False)
    load.rest(0.01)
    load.mark()
    if load.dialect.by_path:
        load.connect(late)
    for one in late:
        load.subscribe(one)
        load.expect(one, messages)
    load.run()
    load.mark()
    load.finish([channel])
    return load.result(subscribers * messages)


def steady(load: Load, *, count: int = 100, rate: int = 1000, seconds: float = 10.0) -> Result:
    """An even stream over many channels; the time from each send to its receipt."""
    return _stream(load, count, rate, seconds, sleeps=False)


def beside(load: Load, *, count: int = 100, rate: int = 1000, seconds: float = 15.0) -> Result:
    """The same stream while the daemon's other parts run, on a core that others use too."""
    return _stream(load, count, rate, seconds, sleeps=True)


def _stream(load: Load, count: int, rate: int, seconds: float, *, sleeps: bool) -> Result:
    total = int(rate * seconds)
    channels = [Channel(i, total // count + 1, load.dialect) for i in range(count)]
    start(load, channels, 1)
    if not sleeps:
        load.rest(0.01)
    for channel in channels:
        channel.sent_at = [0.0]  # the first message is through
    rounds = range(1, total // count + 1)
    joined = load.dialect.joined
    order = [(channel, joined([channel.published[i]])) for i in rounds for channel in channels]
    load.mark()
    load.run(
        ((i / rate, channel, data) for i, (channel, data) in enumerate(order)),
        latencies=True,
        sleeps=sleeps,
    )
    load.mark()
    load.finish(channels)
    return load.result(total, **percentiles(load, total))


def idle(load: Load, *, subscribers: int = 10_000) -> Result:
    """Subscribers that wait, each for a channel of its own; and that all of them still listen."""
    channels = [Channel(i, 1, load.dialect) for i in range(subscribers)]
    load.rest(0.01)
    before = resident_bytes(load.pid)
    load.mark()
    waiting = [Subscriber(channel) for channel in channels]
    load.connect(waiting)
    load.rest()
    after = resident_bytes(load.pid)
    load.mark()
    for one in waiting:
        load.expect(one, 1)
    load.publish(load.dialect.joined(channel.published[0] for channel in channels))
    load.run()
    load.finish(channels)
    return load.result(subscribers, resident_bytes=after, bytes_each=(after - before) / subscribers)


LOADS: dict[str, Callable[[Load], Result]] = {
    "jobs": jobs,
    "fan-out": fan_out,
    "fan-out-300": fan_out_300,
    "replay": replay,
    "steady": steady,
    "beside": beside,
    "idle": idle,
}


def run() -> None:
    """Read the command line, put one load on the server, print what it cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--websocket-port", type=int, required=True)
    parser.add_argument("--publish-port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=15.0, help="of the other load")
    parser.add_argument("--dialect", choices=DIALECTS, default="relay", help="what PID speaks")
    parser.add_argument(
        "--compression", action="store_true", help="offer permessage-deflate, as browsers do"
    )
    arguments = parser.parse_args()
    raise_descriptors()
    load = Load(
        arguments.pid,
        arguments.websocket_port,
        arguments.publish_port,
        compression=arguments.compression,
        dialect=DIALECTS[arguments.dialect],
    )
    try:
        chosen = LOADS[arguments.load]
        if chosen is beside:
            chosen = functools.partial(beside, seconds=arguments.seconds)
        result = chosen(load)
    except (StreamError, OSError) as error:
        raise SystemExit(f"relay_loads: {error}") from error
    print(json.dumps(result))


if __name__ == "__main__":
    run()
