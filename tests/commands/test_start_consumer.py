from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.servers.daemon import StartDaemon

pytestmark = pytest.mark.integration_test


@pytest.mark.parametrize(
    ("config", "results"),
    [
        ({}, "from the spool {state}/spool.db, writing to {state}/monitor.db"),
        (
            {"kafka": {"bootstrap_servers": ["127.0.0.1:1"]}},
            "from Kafka at 127.0.0.1:1, writing",
        ),
        (
            {"database": {"url": "postgresql://me:pw@127.0.0.1:1/x"}},
            "postgresql://me:***@127.0.0.1",
        ),
    ],
)
def test_without_a_section_the_log_says_what_runs(
    start_daemon: StartDaemon, tmp_path: Path, config: dict[str, Any], results: str
) -> None:
    daemon = start_daemon(config, arguments=("start-consumer", "config.yml")).wait_ready()
    said = daemon.wait_log("config.yml has no section aggregation; using the defaults")
    assert "topic website_availability, group recodex-monitor; " in said
    assert results.format(state=tmp_path) in said
    assert daemon.stop() == 0


def test_with_a_section_there_is_nothing_to_say(start_daemon: StartDaemon) -> None:
    arguments = ("start-consumer", "config.yml")
    daemon = start_daemon({"aggregation": {}}, arguments=arguments).wait_ready()
    assert "no section" not in daemon.log
    assert daemon.stop() == 0
