"""A daemon in the process of the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from monitor.aggregation.part import Aggregation
from monitor.alerts.part import Alerts
from monitor.cluster.part import Cluster
from monitor.daemon.config import load
from monitor.daemon.lifecycle import Daemon
from monitor.daemon.logfile import DaemonLog
from monitor.logs.part import Logs
from monitor.probes.part import Probes
from monitor.relay.part import Relay
from monitor.web.part import Web
from tests.waiting import until

__all__ = ["Running", "running"]


class Running:
    """The daemon, and its parts by what they are."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        self.relay = self._part(Relay)
        self.probes = self._part(Probes)
        self.aggregation = self._part(Aggregation)
        self.cluster = self._part(Cluster)
        self.logs = self._part(Logs)
        self.alerts = self._part(Alerts)
        self.web = self._part(Web)

    def _part(self, kind: type) -> Any:
        return next((part for part in self.daemon.parts if isinstance(part, kind)), None)

    async def reload(self, config: Mapping[str, Any]) -> None:
        """Give the daemon another config, which it must take."""
        (self.folder / "config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
        await self.daemon.reload()


@contextlib.asynccontextmanager
async def running(folder: Path, config: Mapping[str, Any]) -> AsyncIterator[Running]:
    """Run a daemon in this process."""
    file = folder / "config.yml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    loaded = load(str(file))
    log = DaemonLog(loaded.config.logger)
    log.start()
    try:
        daemon = Daemon(str(file), loaded, log)
        life = asyncio.create_task(daemon.run())
        await until(lambda: daemon.ready or life.done())
        try:
            yield Running(daemon, folder)
        finally:
            daemon._services.stop("the test is over")
            assert await life == 0
    finally:
        log.stop()
