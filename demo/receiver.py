"""A webhook that prints the alerts of the demo."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["AlertReceiver"]


class AlertReceiver:
    """Prints a line for each message; ``url`` is where it takes them."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The URL of the webhook."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def settings(self) -> dict[str, Any]:
        """Return the section ``alerts`` of the config."""
        rules: list[dict[str, Any]] = [
            {"name": "site down", "watch": "site", "failures": 2},
            {"name": "rollout", "watch": "rollout"},
            {"name": "broker lost", "watch": "feed", "for": 30},
            {"name": "device errors", "watch": "logs", "count": 10, "within": 300},
            {"name": "no results", "watch": "silence", "intervals": 3},
        ]
        return {
            "receivers": [{"name": "terminal", "webhook": self.url}],
            "rules": [{**rule, "receivers": ["terminal"]} for rule in rules],
            "group_wait": 2,
            "maintenance": [
                {
                    "name": "nightly copy",
                    "from": "02:00",
                    "until": "03:30",
                    "match": {"tags": ["mirrors"]},
                }
            ],
        }

    def __enter__(self) -> AlertReceiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        first, count = message["incident"], len(message["incidents"])
        more = f", and {count - 1} more" if count > 1 else ""
        print(
            f"    alert: {message['event']}: {first['title']}{more}: {first['reason']}", flush=True
        )
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing but alerts."""
