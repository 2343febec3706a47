"""A daemon with every part that needs no other server, its tokens, and a client of its API."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from monitor.tokens import Role, create_token
from tests.ports import free_port
from tests.servers.daemon import DaemonProcess
from tests.waiting import LIMIT_S, wait_for


class Whole:
    """The daemon, where it listens, and a session for each role."""

    def __init__(self, daemon: DaemonProcess, config: Mapping[str, Any], folder: Path) -> None:
        self.daemon = daemon
        self.config = config
        self.folder = folder
        self.port: int = config["api"]["uri"][1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.tokens: dict[str, str] = {}

    def request(
        self, method: str, path: str, *, role: str | None = "admin", **options: Any
    ) -> requests.Response:
        """Ask as ``role``; None is nobody."""
        headers = dict(options.pop("headers", {}))
        if role is not None and self.tokens:
            headers["authorization"] = f"Bearer {self.tokens[role]}"
        return requests.request(
            method, self.url + path, headers=headers, timeout=LIMIT_S, **options
        )

    def get(self, path: str, **options: Any) -> Any:
        """Return the JSON of an answer that must be 200."""
        answer = self.request("GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def mock(self, query: str = "status=200&delay=0&size=10") -> dict[str, Any]:
        """Return the settings of a job that checks this daemon's own mock site."""
        job: dict[str, Any] = {
            "url": f"{self.url}/website_mock?{query}",
            "interval": 0.5,
            "timeout": 2,
        }
        if self.tokens:
            job["headers"] = {"authorization": f"Bearer {self.tokens['reader']}"}
        return job

    def wait_for_state(self, job_id: int, state: str) -> dict[str, Any]:
        """Wait until the job is in ``state`` and return its entry."""

        def found() -> Any:
            entry = self.get(f"/job/{job_id}")
            return entry if entry["state"] == state else None

        entry: dict[str, Any] = wait_for(found, f"job {job_id} {state}")
        return entry


@contextlib.contextmanager
def whole(*, tokens: bool = False, **sections: Any) -> Iterator[Whole]:
    """Run a daemon with all parts but the cluster; ``sections`` replace sections of its config."""
    with tempfile.TemporaryDirectory(prefix="recodex-monitor-") as name:
        folder = Path(name)
        file = folder / "tokens.yml"
        found = {role.value: create_token(file, role.value, role) for role in Role if tokens}
        config = {
            "websocket_uri": ["127.0.0.1", free_port()],
            "zeromq_uri": ["127.0.0.1", free_port()],
            "relay": {},
            "probes": {"source": "database"},
            "aggregation": {"flush_interval": 0.2},
            "logs": {},
            "api": {
                "uri": ["127.0.0.1", free_port()],
                "tokens_file": str(file) if tokens else None,
                "website_mock": True,
            },
            **sections,
        }
        if tokens:
            config["api"] = {"tokens_file": str(file), **config["api"]}
        daemon = DaemonProcess(folder, config, debug=False)
        try:
            daemon.wait_ready()
            running = Whole(daemon, config, folder)
            running.tokens = found
            yield running
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log
            assert "[ERROR]" not in daemon.log, daemon.log
        finally:
            daemon.release()
