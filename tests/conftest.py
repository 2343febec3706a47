"""What all tests share: how a missing real server is skipped, or fails where nothing may be."""

from __future__ import annotations

import gc
import logging
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

import tests.servers.cheap_debug.sitecustomize  # noqa: F401
from tests.examples import examples

# How fast a machine is must fail no test: others may be using it.
hypothesis.settings.register_profile(
    "any-speed",
    # `make fast` takes fewer, `make test` hypothesis' own number.
    max_examples=examples(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any-speed")


def _is_not_about_speed(record: logging.LogRecord) -> bool:
    """Drop the debug mode's warnings of slow callbacks, which depend on the machine."""
    return not str(record.msg).startswith("Executing ")


logging.getLogger("asyncio").addFilter(_is_not_about_speed)

# What only `make kubernetes` runs: its servers take minutes to build.
collect_ignore = [] if os.environ.get("RECODEX_TEST_KUBERNETES") == "1" else ["cluster_real"]

_EXCLUDED = re.compile(r"not \w+(?: and not \w+)*")
_MARK = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.(\w+)", re.M)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a file whose mark deselects all of its tests."""
    excluded = config.getoption("markexpr")
    if collection_path.suffix != ".py" or not _EXCLUDED.fullmatch(excluded):
        return None
    mark = _MARK.search(collection_path.read_text(encoding="utf-8"))
    # False would overrule --ignore.
    return (mark is not None and f"not {mark[1]}" in excluded.split(" and ")) or None


def pytest_collection_finish() -> None:
    """Let no garbage collection look at what stays until the end."""
    gc.collect()
    gc.freeze()


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background job: what tests start would be deaf to Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.servers.browser",
    "tests.servers.daemon",
    "tests.servers.kafka",
    "tests.servers.kubernetes",
    "tests.servers.packages",
    "tests.servers.pgbouncer",
    "tests.servers.postgres",
    "tests.store.opened",
]


def missing(reason: str) -> None:
    """Skip the test for what this machine lacks; fail where everything is required."""
    if os.environ.get("RECODEX_TEST_REQUIRE_ALL") == "1":
        pytest.fail(f"required here: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """Return a function that finds a program of this machine, or skips the test."""

    def find(*names: str, package: str) -> str:
        for name in names:
            found = shutil.which(name)
            if found:
                return found
        missing(f"{names[0]} is not installed (Debian package {package})")
        raise AssertionError

    return find
