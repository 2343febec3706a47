"""Connections to PostgreSQL, each with the session settings that exact values depend on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import psycopg2.errorcodes
import psycopg2.extensions
import psycopg2.extras

from monitor.errors import MonitorError, SettingError, UnavailableError
from monitor.log_limits import OutageLog
from monitor.store import pooling, postgres_errors
from monitor.store.interface import LoginError
from monitor.store.pooling import MARK, MarkedConnection
from monitor.store.settings import DatabaseSettings

__all__ = ["Connector", "Place", "place_of"]

logger = logging.getLogger("monitor.store")

Place = tuple[str, str]
"""Host and port."""

# What every session sets, whatever the server, database, role or pooler has: locks of a client that
# vanished must not stay, and numbers and times must come back exactly as they were written. They
# are set by a query, since poolers drop startup parameters.
_SESSION = {
    "bytea_output": "hex",
    "client_min_messages": "warning",
    "DateStyle": "ISO, YMD",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "extra_float_digits": "3",
    "idle_in_transaction_session_timeout": "60000",
    "idle_session_timeout": "0",
    "IntervalStyle": "postgres",
    "lock_timeout": "0",
    "quote_all_identifiers": "off",
    "row_security": "on",
    "statement_timeout": "0",
    "synchronous_commit": "local",
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "TimeZone": "UTC",
    "transaction_timeout": "0",
    "transform_null_equals": "off",
}
# A server that vanished without a word must not hold a connection for longer than a new one takes.
_CONNECTION: dict[str, Any] = {
    "application_name": "recodex-monitor",
    "client_encoding": "UTF8",
    "keepalives": 1,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 8_000,
}
# A statement_timeout of the database may cancel the very statement that turns it off.
_PIN_TRIES = 20
# Characters of a server's own text.
_LONGEST_TEXT = 500
# A server that restarts gives several reasons in a row; one that lasts is logged, too.
_SETTLE_S = 30.0


class Connector:
    """Opens connections, and logs when the server is unavailable and when it is back.

    Used by several threads. ``reported``: whether outages are logged; errors are then marked as
    logged.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        assert settings.url is not None
        self._settings = settings
        self.server = _describe(settings.url)
        # Read again for each connection, so that a rotated password needs no restart.
        self._password = settings.password()
        self.reported = False
        self.answers_logins = True
        """Whether the server takes new logins, as far as :meth:`ask` found out."""
        self._unanswered = False
        self._shared = False
        self._looking = threading.Lock()
        self._apart_at = 0.0
        self._available_at = 0.0
        self._answered_at: dict[Place, float] = {}
        self._lock = threading.Lock()
        self._away = OutageLog(logger, subject=self.server, level=logging.ERROR, settle_s=_SETTLE_S)
        self._read_only = OutageLog(
            logger, subject=self.server, level=logging.ERROR, settle_s=_SETTLE_S
        )

    def connect(self) -> MarkedConnection:
        """Return a new connection in autocommit mode; blocks for at most connect_timeout.

        Raises UnavailableError (or its subclass LoginError), and MonitorError for a URL that libpq
        cannot parse.
        """
        begun = time.monotonic()
        try:
            self._password = self._settings.password()
            # One at a time: others would get the connection that this one looks for.
            with self._looking if self._shared else contextlib.nullcontext():
                raw = self._connected()
                if self._shared:
                    self._require_own(raw)
        except SettingError as error:
            refusal = UnavailableError(self.server, str(error.under("database")))
            raise self.away(refusal) from None
        except psycopg2.ProgrammingError:
            # Its text repeats parts of the URL, which may include the password.
            raise MonitorError(
                f"{self.server}: libpq cannot parse database.url; run check-config for details"
            ) from None
        except psycopg2.Error as error:
            translated = self.translate(error) or UnavailableError(self.server, self.text(error))
            raise self._away_since(begun, translated) from error
        except UnavailableError as error:
            raise self._away_since(begun, error) from None
        self._available()
        return raw

    def ask(self, place: Place | None = None) -> UnavailableError | None:
        """Return why a new connection is not answered; None if it is, if only by a refusal.

        ``place`` is one of several hosts. Blocks, as :meth:`connect`.
        """
        limit_s, begun = self._limit_s(), time.monotonic()
        try:
            if place is None:
                self._connected().close()
            else:
                self._pinned(host=place[0], port=place[1]).close()
        except UnavailableError as error:
            self.answers_logins, self._unanswered = True, True
            return error
        except psycopg2.Error:
            # The address may lead to another server by now.
            answered_at = self._answered_at.get(place, 0.0) if place else self._available_at
            if time.monotonic() >= begun + limit_s * 0.9 and answered_at < begun:
                self.answers_logins, self._unanswered = False, True
                return UnavailableError(self.server, f"no answer in {limit_s} s")
        return None

    async def ask_within(
        self, asked: concurrent.futures.Future[UnavailableError | None]
    ) -> UnavailableError | None:
        """Return what :meth:`ask` returns in a thread, which may wait for a name server."""
        # A name may have two addresses, and a URL several names.
        limit_s = 2 * self._limit_s() * (1 + (self._settings.url or "").count(","))
        answer = asyncio.wrap_future(asked)
        await asyncio.wait({answer}, timeout=limit_s)
        if answer.done():
            return answer.result()
        self.answers_logins, self._unanswered = False, True
        return UnavailableError(self.server, f"no answer in {limit_s} s, or no address of it")

    def answered(self) -> None:
        """Note a transaction that ended well: what :meth:`ask` found is over."""
        if self._unanswered:
            self._available()

    def shared(self, raw: MarkedConnection) -> MonitorError:
        """Return what to raise for a session that a pooler gave to another client."""
        self._shared = True
        error = UnavailableError(self.server, pooling.SHARED)
        if raw.began >= self._apart_at:
            return self.away(error)
        # It is from before that was over.
        error.logged = self.reported
        return error

    def _require_own(self, raw: MarkedConnection) -> None:
        """Raise UnavailableError if the pooler still gives one connection to several clients."""
        # Without a second connection it is not known.
        self._shared = False
        with (
            contextlib.suppress(psycopg2.Error, UnavailableError),
            contextlib.closing(self._connected()) as other,
        ):
            self._shared = not pooling.are_apart(raw, other)
        if self._shared:
            raw.close()
            raise UnavailableError(self.server, pooling.SHARED)
        self._apart_at = raw.began

    @property
    def is_away(self) -> bool:
        """Whether the begin of an outage was logged, and not its end."""
        return self._away.problem is not None

    def away(self, error: MonitorError) -> MonitorError:
        """Log the begin of an outage, once; return ``error``, marked as logged.

        Further reasons for it are not logged, but for a refused login, which lasts until somebody
        mends it.
        """
        return self._report(self._away, error, once=not isinstance(error, LoginError))

    def takes_no_writes(self, error: MonitorError) -> MonitorError:
        """The same for a server that is read-only, whose reason names the statement."""
        return self._report(self._read_only, error, once=True)

    def _away_since(self, begun: float, error: MonitorError) -> MonitorError:
        """Report a connection that was begun then and failed, unless another was made since."""
        if self._available_at <= begun:
            return self.away(error)
        # It was to a server that the address no longer leads to.
        error.logged = self.reported
        return error

    def _available(self) -> None:
        with self._lock:
            self._unanswered, self._available_at = False, time.monotonic()
            self._away.recovered("available again")

    @property
    def read_only(self) -> bool:
        """Whether the server took no writes when it was last tried."""
        return self._read_only.problem is not None

    def takes_writes(self) -> None:
        """Log the end of that."""
        with self._lock:
            self._read_only.recovered("accepts writes again")

    def translate(
        self, error: psycopg2.Error, raw: psycopg2.extensions.connection | None = None
    ) -> MonitorError | None:
        """Return the error that an operator can act on; None for an error of the data itself."""
        return postgres_errors.translate(error, self.server, self.text(error), raw)

    def text(self, error: psycopg2.Error) -> str:
        """Return the text of an error in one line, without the password."""
        text = " ".join(str(error).split())[:_LONGEST_TEXT] or type(error).__name__
        return text.replace(self._password, "***") if self._password else text

    @contextlib.contextmanager
    def limited(self, raw: psycopg2.extensions.connection, hint: str = "") -> Iterator[None]:
        """Cut the connection off if the block takes longer than a new connection may.

        Then raises UnavailableError, with the ``hint``.
        """
        limit_s = self._limit_s()
        cut = threading.Event()
        duplicate = socket.socket(fileno=os.dup(raw.fileno()))

        def cut_off() -> None:
            cut.set()
            with contextlib.suppress(OSError):
                duplicate.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(limit_s, cut_off)
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg2.Error:
            if cut.is_set():
                problem = f"no answer in {limit_s} s{hint}"
                raise UnavailableError(self.server, problem) from None
            raise
        finally:
            timer.cancel()
            duplicate.close()

    def _report(
        self, outage: OutageLog, error: MonitorError, *, once: bool = False
    ) -> MonitorError:
        problem = getattr(error, "problem", str(error))
        with self._lock:
            said = not self.reported or (once and outage.problem is not None)
            outage.failed(problem, cause=_SAID if said else None)
        error.logged = self.reported
        return error

    def _connected(self) -> MarkedConnection:
        settings = self._settings
        assert settings.url is not None
        choosing = "target_session_attrs" in psycopg2.extensions.parse_dsn(settings.url)
        if len(self._places()) > 1 and not choosing:
            # Of several hosts the one that takes writes; if there is none, one to read from.
            with contextlib.suppress(psycopg2.OperationalError):
                return self._at_one_of(self._places(), target_session_attrs="read-write")
        return self._at_one_of(self._places())

    def _places(self) -> list[Place]:
        """Return several hosts, those first that answered last; none if there is one."""
        assert self._settings.url is not None
        found = psycopg2.extensions.parse_dsn(self._settings.url)
        hosts, ports = found.get("host", "").split(","), found.get("port", "").split(",")
        if len(hosts) < 2 or "hostaddr" in found:
            return []
        places = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False)
        return sorted(
            (_place(*place) for place in places),
            key=lambda place: self._answered_at.get(place, 0.0),
            reverse=True,
        )

    def _at_one_of(self, places: list[Place], **more: str) -> MarkedConnection:
        """Connect; if that fails, the first comes last from now on.

        libpq waits for a host that hangs, and tries no other after one that closes the connection.
        """
        if places:
            more |= {
                "host": ",".join(host for host, _ in places),
                "port": ",".join(port for _, port in places),
            }
        try:
            return self._pinned(**more)
        except psycopg2.OperationalError:
            if places:
                self._answered_at[places[0]] = -time.monotonic()
            raise

    def _limit_s(self) -> int:
        # libpq takes whole seconds, and no less.
        return max(2, round(self._settings.connect_timeout))

    def _pinned(self, **more: str) -> MarkedConnection:
        settings = self._settings
        limit_s = self._limit_s()
        arguments: dict[str, Any] = {**_CONNECTION, "connect_timeout": limit_s, **more}
        arguments["connection_factory"] = MarkedConnection
        if self._password is not None:
            arguments["password"] = self._password
        try:
            raw: MarkedConnection = psycopg2.connect(settings.url, **arguments)
        except UnicodeDecodeError as error:
            # The server's language, or no PostgreSQL at all.
            text = bytes(error.object).decode("utf-8", "backslashreplace")
            raise psycopg2.OperationalError(text) from None
        try:
            raw.autocommit = True
            # A pooler without a free connection lets the first statement wait.
            with self.limited(raw, "; is a pooler out of connections?"):
                _pin(raw, {**_SESSION, **_quoting(raw), "search_path": settings.schema})
                pooling.forget_others(raw)
                if (problem := pooling.problem(raw)) is not None:
                    self._shared = True
                    raise UnavailableError(self.server, problem)
            psycopg2.extras.register_default_json(raw, loads=_as_text)
            psycopg2.extras.register_default_jsonb(raw, loads=_as_text)
            self._answered_at[place_of(raw)] = time.monotonic()
        except BaseException:
            raw.close()
            raise
        return raw


_SAID = MonitorError()
_SAID.logged = True


def _quoting(raw: psycopg2.extensions.connection) -> dict[str, str]:
    """Return the setting by which psycopg2 quotes values, for good.

    It looks at the setting once, after it has connected. Our own SQL has no backslash.
    """
    name = "standard_conforming_strings"
    return {name: raw.info.parameter_status(name) or "on"}


def _pin(raw: MarkedConnection, settings: dict[str, str]) -> None:
    with raw.cursor() as cursor:
        for left in reversed(range(_PIN_TRIES)):
            try:
                cursor.execute("SET statement_timeout = 0")
                cursor.execute(
                    "SELECT set_config(name, value, false)"
                    " FROM unnest(%s || %s::text, %s || %s::text) AS pinned (name, value)"
                    # Some are newer than the server. The spool forgets, and clients do, what is
                    # committed, so that must be on its disk; standbys are for the server to say.
                    " WHERE name = %s OR current_setting(name, true) IS NOT NULL AND"
                    " (name <> 'synchronous_commit' OR current_setting(name) = 'off')",
                    (list(settings), MARK, list(settings.values()), raw.mark, MARK),
                )
                return
            except psycopg2.errors.QueryCanceled:
                if not left:
                    raise


def place_of(raw: psycopg2.extensions.connection) -> Place:
    """Return where a connection leads, of several hosts."""
    return _place(raw.info.host or "", str(raw.info.port))


def _place(host: str, port: str) -> Place:
    return host, port or "5432"


def _as_text(value: str) -> str:
    return value


def _describe(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "the local socket"
    return f"database {parts.path.strip('/')} at {host}"
