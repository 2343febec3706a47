"""The pictures of the architecture page, drawn from the imports and checked against them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import grimp

__all__ = ["FLOWS", "Arrow", "floors", "flow", "missing_links"]

_PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
_ROOT = "monitor"


class Arrow(NamedTuple):
    """What goes from one place to another. A name with a slash is a module below monitor/."""

    source: str
    carries: str
    target: str


# The path of the data through each part, in order.
FLOWS: dict[str, Sequence[Arrow]] = {
    "relay": [
        Arrow("brokers", "ZeroMQ", "relay/open_receiver"),
        Arrow("brokers with keys", "CURVE", "relay/router_receiver"),
        Arrow("relay/open_receiver", "messages", "relay/channels"),
        Arrow("relay/router_receiver", "messages", "relay/channels"),
        Arrow("relay/channels", "histories", "relay/delivery"),
        Arrow("relay/delivery", "frames", "relay/connection"),
        Arrow("relay/connection", "WebSocket", "clients"),
        Arrow("relay/channels", "histories", "relay/saving"),
        Arrow("relay/saving", "rows", "relay/history_file"),
        Arrow("relay/shared_channels", "histories", "relay/publishing"),
        Arrow("relay/publishing", "records", "Kafka"),
        Arrow("Kafka", "records of all relays", "relay/following"),
        Arrow("relay/following", "records", "relay/replicas"),
        Arrow("relay/replicas", "messages of other relays", "relay/shared_channels"),
    ],
    "probes": [
        Arrow("config, file or database", "jobs", "probes/source"),
        Arrow("probes/source", "jobs", "probes/runner"),
        Arrow("probes/schedule", "runs that are due", "probes/runner"),
        Arrow("probes/runner", "jobs", "probes/checking"),
        Arrow("probes/checking", "", "probes/checks"),
        Arrow("probes/checks", "attempts", "sites"),
        Arrow("probes/runner", "results", "bus"),
    ],
    "aggregation": [
        Arrow("bus", "results", "aggregation/consuming"),
        Arrow("aggregation/consuming", "messages", "aggregation/batch"),
        Arrow("aggregation/batch", "one message", "aggregation/intake"),
        Arrow("aggregation/consuming", "batches", "aggregation/transactions"),
        Arrow("aggregation/transactions", "batches", "aggregation/writer"),
        Arrow("aggregation/writer", "new results", "aggregation/windows"),
        Arrow("aggregation/writer", "rows, metrics and offsets", "store"),
    ],
    "cluster": [
        Arrow("API server", "list and watch", "cluster/watch"),
        Arrow("cluster/watch", "objects", "cluster/tracker"),
        Arrow("cluster/tracker", "objects and last states", "cluster/changes"),
        Arrow("cluster/tracker", "states and events", "cluster/journal"),
        Arrow("cluster/journal", "rows", "store"),
        Arrow("cluster/journal", "events", "bus"),
    ],
    "logs": [
        Arrow("devices", "WebSocket or ZeroMQ", "logs/session"),
        Arrow("logs/session", "requests", "logs/service"),
        Arrow("logs/service", "entries", "logs/commits"),
        Arrow("logs/commits", "group commits", "store"),
        Arrow("logs/service", "queries", "logs/pages"),
        Arrow("logs/service", "regular expressions", "logs/expressions"),
        Arrow("logs/service", "new entries", "logs/followers"),
        Arrow("logs/retention", "deletes", "store"),
    ],
    "alerts": [
        Arrow("bus", "results and model events", "alerts/reader"),
        Arrow("alerts/reader", "messages", "alerts/judges"),
        Arrow("alerts/judges", "results", "alerts/judging"),
        Arrow("alerts/reader", "offsets, states and incidents", "store"),
        Arrow("parts, relay, log entries", "conditions", "alerts/watching"),
        Arrow("alerts/watching", "states and incidents", "store"),
        Arrow("store", "incidents whose time has come", "alerts/notifier"),
        Arrow("alerts/notifier", "incidents", "alerts/planning"),
        Arrow("alerts/notifier", "messages", "store"),
        Arrow("alerts/sender", "messages", "alerts/receivers"),
        Arrow("alerts/receivers", "HTTP, SMTP, ...", "receivers"),
    ],
    "web": [
        Arrow("clients", "HTTP, WebSocket", "web/http/app"),
        Arrow("web/http/app", "requests", "web/routes"),
        Arrow("web/routes", "", "web/routes/jobs"),
        Arrow("web/routes/jobs", "state and history", "web/jobs/registry"),
        Arrow("web/jobs/registry", "queries", "store"),
        Arrow("clients", "WebSocket", "web/http/sockets"),
        Arrow("web/live/feed", "changes", "web/live/page"),
        Arrow("web/live/page", "frames", "clients"),
    ],
}


def floors() -> str:
    """Return the floors of the linter's first contract as a Mermaid chart, the highest first."""
    rows = _floors()
    lines = ["```mermaid", "flowchart TD"]
    lines.extend(f'    f{number}["{" · ".join(row)}"]' for number, row in enumerate(rows))
    lines.append("    " + " --> ".join(f"f{number}" for number in range(len(rows))))
    return "\n".join([*lines, "```"])


def flow(part: str) -> str:
    """Return the path of the data through a part as a Mermaid chart."""
    lines = ["```mermaid", "flowchart LR"]
    for source, carries, target in FLOWS[part]:
        label = f" -- {carries} --> " if carries else " --> "
        lines.append(f"    {_node(source)}{label}{_node(target)}")
    return "\n".join([*lines, "```"])


def missing_links() -> Iterator[str]:
    """Yield each module of the flows that does not exist, and each arrow that no import backs.

    An arrow between two modules needs one of them to import the other, or a third to import both.
    """
    graph = _graph()
    for part, arrows in FLOWS.items():
        for source, _, target in arrows:
            inside = [_module(name) for name in (source, target) if "/" in name]
            absent = [name for name in inside if name not in graph.modules]
            if absent:
                yield f"{part}: there is no {absent[0]}"
            elif len(inside) == 2 and not _linked(*inside):
                yield f"{part}: nothing links {source} with {target}"


def _linked(one: str, other: str) -> bool:
    graph = _graph()
    if graph.direct_import_exists(importer=one, imported=other):
        return True
    if graph.direct_import_exists(importer=other, imported=one):
        return True
    importers = graph.find_modules_that_directly_import
    return bool(importers(one) & importers(other))


def _module(name: str) -> str:
    return f"{_ROOT}.{name.replace('/', '.')}"


def _node(name: str) -> str:
    if "/" in name:
        return f"{_module(name).replace('.', '_')}[{name}]"
    key = "".join(letter for letter in name if letter.isalnum())
    return f"{key}_(({name}))"


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(_ROOT, cache_dir=None)


def _floors() -> list[list[str]]:
    contracts = tomllib.loads(_PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    return [
        [name.strip(" ()").removeprefix(f"{_ROOT}.") for name in row.split("|")]
        for row in contracts[0]["layers"]
    ]
