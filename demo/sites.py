"""A handful of sites on one loopback server, some of which have bad days."""

from __future__ import annotations

import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Sites"]

# name, path, interval in s, seconds to answer (mean), failing share of a minute, first failing s
_SITES = (
    ("Submission portal", "/portal", 2, 0.012, 0.0, 0),
    ("Exercise catalogue", "/exercises", 2, 0.035, 0.0, 0),
    ("Code archive", "/archive", 3, 0.08, 0.0, 0),
    ("Identity provider", "/login", 2, 0.02, 0.0, 0),
    ("Plagiarism checker", "/compare", 3, 0.22, 0.25, 20),
    ("Worker images registry", "/images", 3, 0.05, 0.0, 0),
    ("Statistics", "/statistics", 5, 0.4, 0.4, 35),
    ("Course wiki", "/wiki", 4, 0.06, 0.0, 0),
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that goes in the middle: a check, or the daemon, has ended."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Sites:
    """The server, and the jobs that check it."""

    def __init__(self) -> None:
        choose = random.Random(7)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site = next((each for each in _SITES if each[1] == self.path), None)
                if site is None:
                    self._answer(404)
                    return
                _, _, _, mean, failing, first = site
                time.sleep(min(1.5, choose.lognormvariate(0, 0.35) * mean))
                ill = first <= time.time() % 60 < first + 60 * failing
                self._answer(503 if ill else 200)

            def _answer(self, status: int) -> None:
                body = b"x" * choose.randint(500, 20_000)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = _Server(("127.0.0.1", 0), Handler)

    def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs, as the config has them."""
        port = self._server.server_address[1]
        jobs: list[dict[str, Any]] = [
            {
                "id": number,
                "name": name,
                "url": f"http://127.0.0.1:{port}{path}",
                "interval": interval,
                "timeout": 2,
                "tags": ["public"],
            }
            for number, (name, path, interval, *_) in enumerate(_SITES, 1)
        ]
        jobs.append(
            {
                "id": 20,
                "name": "Old mirror",
                "url": "http://127.0.0.1:9/",
                "interval": 5,
                "timeout": 2,
            }
        )
        jobs.append(
            {
                "id": 21,
                "name": "Broker port",
                "kind": "tcp",
                "url": f"tcp://127.0.0.1:{port}",
                "interval": 4,
                "timeout": 2,
            }
        )
        jobs += [
            {
                "id": 22,
                "name": "Mirror of the old mirror",
                "url": f"http://127.0.0.1:{port}/",
                "interval": 7,
                "timeout": 2,
                "depends_on": [20],
                "tags": ["mirrors"],
            },
            {
                "id": 23,
                "name": "Broker's answer",
                "kind": "tcp",
                "url": f"tcp://127.0.0.1:{port}",
                "interval": 6,
                "timeout": 2,
                "dialogue": [{"send": "GET / HTTP/1.0\r\n\r\n"}, {"expect": "^HTTP/1"}],
            },
            {
                "id": 24,
                "name": "This host",
                "kind": "ping",
                "url": "ping://127.0.0.1",
                "interval": 5,
            },
        ]
        return jobs

    def __enter__(self) -> Sites:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
