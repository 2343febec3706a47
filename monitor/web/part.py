"""The web part: the HTTP server in the daemon's loop, and everything that it serves."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.concurrency import run_in_threadpool

from monitor.errors import MonitorError
from monitor.files.threads import call_aside
from monitor.log_limits import OutageLog
from monitor.metrics import Metric
from monitor.part import Health, Part, State, counted
from monitor.settings import Address, address_text
from monitor.store import Store
from monitor.tokens import TokenFile, require_tokens
from monitor.transport.listen import give_up_after, listening_sockets
from monitor.transport.tls import Certificates, read_tls
from monitor.transport.tls_server import MOST_HANDSHAKES, MOST_WAITING, TLSServer
from monitor.web.context import Context, DaemonStatus, PartsStatus
from monitor.web.http import static_files
from monitor.web.http.access import Access
from monitor.web.http.app import make_app
from monitor.web.http.attempts import Attempts
from monitor.web.http.connections import Connections
from monitor.web.http.limits import MAX_HEADER_BYTES, LimitedHttp
from monitor.web.http.sessions import Sessions
from monitor.web.http.sockets import Sockets
from monitor.web.routes import Served, served
from monitor.web.routes.pages import OPEN_PATHS
from monitor.web.settings import ApiSettings

if TYPE_CHECKING:
    from monitor.bus.look import TopicLook
    from monitor.logs.reader import LogReader

__all__ = ["Web"]

logger = logging.getLogger("monitor.web")

_DRAIN_S = 3.0
_SPARE_DESCRIPTORS = 384


class Web(Part):
    """Serves the API, WebSockets and pages of the daemon's ``parts``."""

    name = "web"
    section = "api"

    def __init__(
        self,
        settings: ApiSettings,
        *,
        tokens: TokenFile,
        parts: Callable[[], Sequence[Part]],
        status: DaemonStatus | None = None,
        store: Store | None = None,
        log_reader: LogReader | None = None,
        topics: TopicLook | None = None,
    ) -> None:
        """Take what other parts share, a way to get the parts, and the state of the daemon."""
        self._settings = settings
        self._tokens = tokens
        self._parts = parts
        self._status = status
        self._store = store
        self._log_reader = log_reader
        self._sessions = Sessions(tokens)
        # Whether some ended with their tokens, and the file still has them.
        self._logins_ended = False
        self._topics = topics
        self._access = Access(
            lambda: tokens.current,
            session=self._sessions.owner,
            origins=settings.origins,
            open_paths=OPEN_PATHS,
        )
        self._checked_with = tokens.current
        self._attempts = Attempts()
        self._connections = Connections(settings)
        # TLS handshakes, by why they failed.
        self._refused: dict[str, int] = {}
        self._tls = None if settings.tls is None else Certificates(read_tls(settings.tls))
        self._sockets: Sockets | None = None
        self._server: uvicorn.Server | None = None
        self._listeners: list[socket.socket] = []
        self._tasks: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.addresses: list[Address] = []

    def descriptors(self) -> int:
        """One descriptor per connection, and some for clients that are connecting."""
        handshakes = 0 if self._tls is None else MOST_HANDSHAKES + MOST_WAITING
        return self._settings.max_connections + _SPARE_DESCRIPTORS + handshakes

    async def check(self) -> None:
        """Read the tokens: an address that is not loopback needs some."""
        await asyncio.to_thread(self._tokens.load)
        require_tokens(self._settings.uri, self._tokens.current, key="uri")

    async def start(self) -> None:
        """Read the tokens, load what the first answers need, bind, and accept."""
        settings = self._settings
        # Without a daemon nobody has called check(), and the API must not be open to everyone.
        await self.check()
        await asyncio.to_thread(self._sessions.load)
        await call_aside(static_files.load)
        # It imports what it needs at the first call, which takes a while.
        await run_in_threadpool(bool)
        listeners = await listening_sockets(
            settings.uri, key="api.uri", unacknowledged_s=settings.client_stall
        )
        try:
            found = served(self._context())
            self._tasks = found.tasks
            for first in found.first:
                try:
                    await first()
                except MonitorError as error:
                    logger.warning("cannot load data at the start, retrying: %s", error)
            await self._accept(listeners, found)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        for address in self.addresses:
            scheme = "http" if self._tls is None else "https"
            logger.info("serving the API on %s://%s", scheme, address_text(address))

    def _context(self) -> Context:
        parts = {part.name: part for part in self._parts()}
        return Context(
            settings=self._settings,
            access=self._access,
            parts=parts,
            status=self._status or PartsStatus(parts),
            tokens=self._tokens,
            sessions=self._sessions,
            attempts=self._attempts,
            recheck=self._recheck,
            store=self._store,
            log_reader=self._log_reader,
            topics=self._topics,
            current=lambda: self._settings,
        )

    async def _accept(
        self,
        listeners: list[socket.socket],
        found: Served,
    ) -> None:
        settings = self._settings
        self._sockets = Sockets(
            self._access,
            self._connections,
            found.websockets,
            attempts=self._attempts,
            max_message_bytes=found.max_message_bytes,
        )
        protocol: Any = type("Http", (LimitedHttp,), {"limits": self._connections})
        websocket: Any = self._sockets.protocol
        config = uvicorn.Config(
            make_app(
                self._connections, self._access, self._attempts, found.routers, found.websockets
            ),
            http=protocol,
            ws=websocket,
            loop="none",  # the daemon's
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=1024,
            timeout_keep_alive=settings.keep_alive,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        # LimitedHttp logs what is wrong with a client, and the daemon logs the life cycle.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        config.load()
        config.ssl = None if self._tls is None else self._tls.served
        # Not Server.serve(): the daemon handles signals, and decides when to stop. Not
        # Server.startup(), which has no limit for handshakes.
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.on_tick(0)
        make = functools.partial(
            protocol, config=config, server_state=server.server_state, app_state={}
        )

        def make_for(client: Address | None) -> LimitedHttp:
            made: LimitedHttp = make()
            made.proxied = client
            return made

        servers: list[Any] = []
        for listener in listeners:
            if config.ssl is None:
                servers.append(
                    await asyncio.get_running_loop().create_server(
                        make, sock=listener, backlog=config.backlog
                    )
                )
            else:
                encrypted = TLSServer(
                    listener,
                    make_for,
                    config.ssl,
                    limit_s=settings.request_timeout,
                    refused=self._refused_handshake,
                    is_proxy=self._connections.is_proxy,
                )
                encrypted.start(config.backlog)
                servers.append(encrypted)
        server.servers = servers
        server.started = True
        self._server, self._listeners = server, listeners
        self.addresses = [listener.getsockname()[:2] for listener in listeners]

    async def run(self) -> None:
        """Keep the Date header current, and run the tasks of the routes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="web:tick")
            for number, task in enumerate(self._tasks):
                group.create_task(task(), name=f"web:{number}")
            if self._tls is not None:
                renewal = OutageLog(logger, subject="api.tls", outcome="keeping the old files")
                follow = self._tls.follow(
                    lambda: self._settings.tls,
                    renewed=lambda: self._renewed(renewal),
                    failed=renewal.failed,
                )
                group.create_task(follow, name="web:tls")

    def _refused_handshake(self, kind: str, problem: str, peer: Address) -> None:
        self._refused[kind] = self._refused.get(kind, 0) + 1
        if problem:
            log = self._connections.faults_log
            log.warning(kind, "refused %s: %s", address_text(peer), problem)

    def _renewed(self, renewal: OutageLog) -> None:
        renewal.recovered("the new files can be used")
        logger.info("api.tls: using the new certificate")

    async def _tick(self) -> None:
        assert self._server is not None
        while True:
            await self._server.on_tick(0)
            if self._tokens.current is not self._checked_with:
                # One of them has expired.
                self._recheck()
            if self._logins_ended:
                self._logins_ended = False
                await self._sessions.save()
            await self._tokens.uses.save()
            await asyncio.sleep(1)

    def _recheck(self) -> None:
        self._checked_with = self._tokens.current
        self._logins_ended |= self._sessions.recheck()
        if self._sockets is not None:
            self._sockets.recheck()

    async def drain(self) -> None:
        """Stop accepting, answer the requests received, and close WebSockets with 1001."""
        server = self._server
        if server is None:
            return
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        deadline = asyncio.get_running_loop().time() + _DRAIN_S
        if self._sockets is not None:
            await self._sockets.drain(_DRAIN_S)
        await self._tokens.uses.save(at_once=True)
        tasks = set(server.server_state.tasks)
        left = deadline - asyncio.get_running_loop().time()
        if tasks and left > 0:
            await asyncio.wait(tasks, timeout=left)

    async def close(self) -> None:
        """Close sockets and connections."""
        if self._sockets is not None:
            self._sockets.abort()
        server, self._server = self._server, None
        if server is None:
            return
        for listener in server.servers:
            listener.close()
        for task in server.server_state.tasks:
            task.cancel()
        for connection in list(server.server_state.connections):
            with contextlib.suppress(AttributeError):
                connection.transport.abort()

    def state(self) -> State:
        """Return how many connections there are, and how long the certificate is valid."""
        sockets = 0 if self._sockets is None else len(self._sockets)
        summary = (
            f"{counted(len(self._connections), 'connection')}, {counted(sockets, 'WebSocket')}"
        )
        if self._tls is None:
            return State(Health.OK, summary)
        health = Health.DEGRADED if self._tls.has_expired else Health.OK
        return State(health, f"{summary}, {self._tls.summary}")

    def metrics(self) -> Iterable[Metric]:
        """Return the number of connections."""
        yield Metric(
            "web_connections",
            "gauge",
            "Open HTTP and WebSocket connections",
            [({}, len(self._connections))],
        )
        yield Metric(
            "web_invalid_tokens_total",
            "counter",
            "Requests and logins with an invalid token or session",
            [({}, self._attempts.failed)],
        )
        yield Metric(
            "web_handshakes_refused_total",
            "counter",
            "Connections whose TLS handshake failed or never came",
            [({"reason": reason}, count) for reason, count in self._refused.items()],
        )
        if self._tls is not None:
            yield from self._tls.metrics("web_certificate_expires_at_seconds")

    async def prepare(self, settings: Any) -> Callable[[], None]:
        """Adopt tokens, origins and limits."""
        assert isinstance(settings, ApiSettings)
        adopted = self._settings.adopting(settings)
        if settings.tokens_file != self._settings.tokens_file:
            fresh = TokenFile(settings.tokens_file)
        else:
            fresh = TokenFile(self._tokens.file)
        tokens = await asyncio.to_thread(fresh.read, after=self._tokens.current)
        require_tokens(self._settings.uri, tokens, key="tokens_file")
        # The address waits for a restart, which must not be the one to refuse it.
        require_tokens(settings.uri, tokens, key="uri")
        tls = None if settings.tls is None else await call_aside(read_tls, settings.tls)

        def switch() -> None:
            self._settings = adopted
            self._tokens.file, self._tokens.current = fresh.file, tokens
            self._access.origins = tuple(adopted.origins)
            self._connections.settings = adopted
            # A section that the file no longer has stays in force, and its files may be gone.
            if self._tls is not None and tls is not None:
                self._tls.adopt(tls)
            for listener in self._listeners:
                give_up_after(listener, adopted.client_stall)
            self._recheck()

        return switch
