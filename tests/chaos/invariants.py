"""What must be true at the end, judged from what was written down: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from tests.aggregation.plain import Tables
from tests.chaos.findings import Finding
from tests.chaos.service import Resources

__all__ = [
    "forwarded_finding",
    "output_finding",
    "processes_finding",
    "resources_finding",
    "tables_finding",
]

_TRACEBACK = re.compile(
    r"Traceback \(most recent call last\)|--- Logging error ---|^Fatal Python", re.M
)
_MB = 1_000_000


def tables_finding(found: Tables, expected: Tables, *, offsets: bool) -> Finding:
    """Compare the tables with a plain computation over what was published."""
    problems: list[str] = []
    for name in ("results", "metrics", "rejected", *(("offsets",) if offsets else ())):
        ours: Mapping[object, object] = getattr(found, name)
        theirs: Mapping[object, object] = getattr(expected, name)
        if ours == theirs:
            continue
        problems += [f"{name}: {key} is missing" for key in _first(theirs.keys() - ours.keys())]
        problems += [f"{name}: {key} is too much" for key in _first(ours.keys() - theirs.keys())]
        differing = [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
        problems += [
            f"{name}: {key} is {ours[key]}, must be {theirs[key]}" for key in _first(differing)
        ]
    counts = sum(metric[0] for (_, _, kind, _), metric in found.metrics.items() if kind == "minute")
    return Finding(
        "every result is counted once",
        f"{len(found.results)} raw results, {counts} counted in {len(found.metrics)} windows,"
        f" {len(found.rejected)} set apart",
        tuple(problems),
    )


def _first(keys: Iterable[object]) -> list[object]:
    return sorted(keys, key=str)[:5]


def forwarded_finding(stored: Sequence[str], forwarded: Sequence[str]) -> Finding:
    """Compare the ids of model events in the store with those that came out of the bus, in order.

    A crash may have sent some once more, with the same id; the first time counts.
    """
    first = list(dict.fromkeys(forwarded))
    problems = []
    if set(first) != set(stored):
        problems.append(
            f"{len(set(stored) - set(first))} never came, {len(set(first) - set(stored))} unknown"
        )
    again = len(forwarded) - len(first)
    return Finding(
        "model events came out of the bus", f"{len(first)}, {again} of them again", tuple(problems)
    )


def processes_finding(
    ends: Mapping[str, int], problems: Mapping[str, Sequence[str]], faults: Sequence[str]
) -> Finding:
    """Judge how the daemons ended, and whether the faults did what they should."""
    told = [f"{name} {problem}" for name, several in problems.items() for problem in several]
    return Finding(
        "no daemon ended by itself, all did what signals ask for",
        ", ".join(f"{name} ended {count} times" for name, count in ends.items()),
        (*told, *faults),
    )


def output_finding(texts: Iterable[tuple[str, str]], secrets: Sequence[str]) -> Finding:
    """Look for tracebacks and secrets in what the daemons wrote."""
    problems: list[str] = []
    lines = errors = 0
    for name, text in texts:
        lines += text.count("\n")
        errors += text.count("[ERROR]") + text.count("[CRITICAL]")
        problems += [
            f"{name}: {text[max(0, found.start() - 200) : found.start() + 1500]}"
            for found in _TRACEBACK.finditer(text)
        ]
        problems += [
            f"{name}: shows the secret {secret.partition('-')[0]}"
            for secret in secrets
            if secret in text
        ]
    return Finding(
        "logs and stderr have no traceback and no secret",
        f"{lines} lines, {errors} of them errors, {len(secrets)} secrets looked for",
        tuple(problems),
    )


def resources_finding(
    name: str,
    before: Resources,
    after: Resources,
    *,
    growth_bytes: int,
    descriptors: int,
    threads: int,
) -> Finding:
    """Compare what a process held before the faults, under load, with what it holds at rest."""
    problems = []
    if after.resident > before.resident + growth_bytes:
        problems.append(f"memory grew by more than {growth_bytes / _MB:.0f} MB")
    if after.descriptors > before.descriptors + descriptors:
        problems.append(f"more than {descriptors} descriptors are left over")
    if after.threads > before.threads + threads:
        problems.append(f"more than {threads} threads are left over")
    return Finding(
        f"{name}: memory, descriptors and threads are back",
        f"{before.resident / _MB:.0f} -> {after.resident / _MB:.0f} MB,"
        f" {before.descriptors} -> {after.descriptors} descriptors,"
        f" {before.threads} -> {after.threads} threads",
        tuple(problems),
    )
