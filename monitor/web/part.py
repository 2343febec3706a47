"""The web part: the HTTP server in the daemon's loop, and everything that it serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import uvicorn

from monitor.errors import MonitorError
from monitor.metrics import Metric
from monitor.part import Health, Part, State
from monitor.settings import Address, address_text
from monitor.store import Store
from monitor.tokens import TokenFile, require_tokens
from monitor.transport.listen import give_up_after, listening_sockets
from monitor.web.context import Context, DaemonStatus, PartsStatus
from monitor.web.http.access import Access
from monitor.web.http.app import make_app
from monitor.web.http.limits import MAX_HEADER_BYTES, Connections, LimitedHttp
from monitor.web.http.sockets import Sockets
from monitor.web.routes import Served, served
from monitor.web.routes.pages import OPEN_PATHS
from monitor.web.settings import ApiSettings

if TYPE_CHECKING:
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
    ) -> None:
        """Take what other parts share, a way to get the parts, and the state of the daemon."""
        self._settings = settings
        self._tokens = tokens
        self._parts = parts
        self._status = status
        self._store = store
        self._log_reader = log_reader
        self._access = Access(
            lambda: tokens.current, origins=settings.origins, open_paths=OPEN_PATHS
        )
        self._connections = Connections(settings)
        self._sockets: Sockets | None = None
        self._server: uvicorn.Server | None = None
        self._listeners: list[socket.socket] = []
        self._tasks: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.addresses: list[Address] = []

    def descriptors(self) -> int:
        """One descriptor per connection, and some for clients that are connecting."""
        return self._settings.max_connections + _SPARE_DESCRIPTORS

    async def check(self) -> None:
        """Read the tokens: an address that is not loopback needs some."""
        await asyncio.to_thread(self._tokens.load)
        require_tokens(self._settings.uri, self._tokens.current, key="uri")

    async def start(self) -> None:
        """Read the tokens, load what the first answers need, bind, and accept."""
        settings = self._settings
        # Without a daemon nobody has called check(), and the API must not be open to everyone.
        await self.check()
        listeners = await listening_sockets(
            settings.uri, key="api.uri", unacknowledged_s=settings.client_stall
        )
        found = served(self._context())
        self._tasks = found.tasks
        for first in found.first:
            try:
                await first()
            except MonitorError as error:
                logger.warning("cannot load data at the start, retrying: %s", error)
        try:
            await self._accept(listeners, found)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        for address in self.addresses:
            logger.info("serving the API on http://%s", address_text(address))

    def _context(self) -> Context:
        parts = {part.name: part for part in self._parts()}
        return Context(
            settings=self._settings,
            access=self._access,
            parts=parts,
            status=self._status or PartsStatus(parts),
            tokens=self._tokens,
            store=self._store,
            log_reader=self._log_reader,
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
            max_message_bytes=found.max_message_bytes,
        )
        protocol: Any = type("Http", (LimitedHttp,), {"limits": self._connections})
        websocket: Any = self._sockets.protocol
        config = uvicorn.Config(
            make_app(self._connections, self._access, found.routers, found.websockets),
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
        # Not Server.serve(): the daemon handles signals, and decides when to stop.
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.on_tick(0)
        await server.startup(sockets=listeners)
        self._server, self._listeners = server, listeners
        self.addresses = [listener.getsockname()[:2] for listener in listeners]

    async def run(self) -> None:
        """Keep the Date header current, and run the tasks of the routes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="web:tick")
            for number, task in enumerate(self._tasks):
                group.create_task(task(), name=f"web:{number}")

    async def _tick(self) -> None:
        assert self._server is not None
        while True:
            await self._server.on_tick(0)
            await asyncio.sleep(1)

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
        """Return how many connections there are."""
        sockets = 0 if self._sockets is None else len(self._sockets)
        return State(Health.OK, f"{len(self._connections)} connections, {sockets} WebSockets")

    def metrics(self) -> Iterable[Metric]:
        """Return the number of connections."""
        yield Metric(
            "web_connections",
            "gauge",
            "Open HTTP and WebSocket connections",
            [({}, len(self._connections))],
        )

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

        def switch() -> None:
            self._settings = adopted
            self._tokens.file, self._tokens.current = fresh.file, tokens
            self._access.origins = frozenset(adopted.origins)
            self._connections.settings = adopted
            for listener in self._listeners:
                give_up_after(listener, adopted.client_stall)
            if self._sockets is not None:
                self._sockets.recheck()

        return switch
