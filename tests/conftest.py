"""What all tests share: how a missing real server is skipped, or fails where nothing may be."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable

import hypothesis
import pytest

# How fast a machine is must fail no test: others may be using it.
hypothesis.settings.register_profile(
    "any-speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-speed")


def _is_not_about_speed(record: logging.LogRecord) -> bool:
    """Drop the debug mode's warnings of slow callbacks, which depend on the machine."""
    return not str(record.msg).startswith("Executing ")


logging.getLogger("asyncio").addFilter(_is_not_about_speed)

# What only `make kubernetes` runs: its servers take minutes to build.
collect_ignore = [] if os.environ.get("RECODEX_TEST_KUBERNETES") == "1" else ["cluster_real"]

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
