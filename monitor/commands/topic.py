"""``topic NAME [--follow]``: shows the messages of a topic in Kafka or, without it, the spool."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from monitor.bus import Bus, Consumer, Record, create_bus, list_topics
from monitor.commands.found_config import find_config
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.daemon.config import Config
from monitor.errors import MonitorError, UnavailableError, UsageError

__all__ = ["add_arguments", "run"]

_POLL_S = 0.2
# How long to wait for the first message or for the next: an open transaction may hold them back.
_ANSWER_S = 15.0
_QUIET_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", metavar="NAME", help="the topic, such as website_availability")
    parser.add_argument("-c", "--config", metavar="FILE", help="the config of the daemon")
    parser.add_argument("--follow", action="store_true", help="also show new messages")
    parser.add_argument(
        "--last", type=int, metavar="N", help="of existing messages, only the last N"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per message")


def run(args: argparse.Namespace) -> int:
    """Print the messages of the topic, oldest first."""
    if args.last is not None and args.last < 0:
        raise UsageError("--last: expected at least 0")
    config = find_config(args.config, "bus", "kafka").loaded.config
    known = list_topics(config.bus, config.kafka)
    if args.name not in known:
        names = ", ".join(known) or "none yet"
        raise MonitorError(f"there is no topic {args.name!r}; there are: {names}")
    asyncio.run(_print(config, args))
    return 0


async def _print(config: Config, args: argparse.Namespace) -> None:
    # The bus is not started: reading needs no writer and no forwarder.
    bus = create_bus(config.bus, config.kafka)
    consumer = bus.consumer(args.name, group=None)
    held: deque[Record] = deque(maxlen=args.last)
    try:
        async for records in _present(bus, consumer):
            if args.last is None:
                _write(records, as_json=args.json)
            else:
                held.extend(records)
        _write(list(held), as_json=args.json)
        if not args.follow and (troubles := bus.troubles()):
            raise UnavailableError("kafka", "; ".join(troubles))
        while args.follow:
            _write(await consumer.poll(timeout_s=1.0), as_json=args.json)
    finally:
        await consumer.close()


async def _present(bus: Bus, consumer: Consumer) -> AsyncIterator[list[Record]]:
    """Yield the messages that there are now; a busy topic has new ones all the time.

    Ends at the current end, or where nothing more can be read.
    """
    began = time.time()
    quiet_at = time.monotonic() + _ANSWER_S
    while True:
        records = await consumer.poll(max_records=1000, timeout_s=_POLL_S)
        if records:
            quiet_at = time.monotonic() + _QUIET_S
            yield records
            if records[-1].timestamp > began:
                return
            continue
        lag = await consumer.lag()
        whole = bool(consumer.assignment()) and lag.keys() >= consumer.assignment()
        if (whole and not any(lag.values())) or time.monotonic() > quiet_at or bus.troubles():
            return


def _write(records: list[Record], *, as_json: bool) -> None:
    for record in records:
        print(_json(record) if as_json else _line(record))
    sys.stdout.flush()


def _line(record: Record) -> str:
    try:
        at = datetime.fromtimestamp(record.timestamp, UTC).astimezone()
        when = at.isoformat(" ", "milliseconds")
    except (ValueError, OverflowError, OSError):
        # An invalid year; with Kafka the time is from the producer.
        when = f"{record.timestamp:.3f}"
    key = "-" if record.key is None else terminal_text(record.key)
    # The message may contain control sequences.
    value = terminal_text(record.value.decode("utf-8", "backslashreplace"))
    return f"{when} {record.partition}:{record.offset} {key} {value}"


def _json(record: Record) -> str:
    try:
        value = msgspec.json.decode(record.value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = record.value.decode("utf-8", "backslashreplace")
    whole = msgspec.json.encode({**msgspec.structs.asdict(record), "value": value})
    return terminal_json(whole.decode())
