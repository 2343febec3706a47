"""The relay as a part of the daemon: receiver, channels and server put together."""

# ruff: noqa: D102 - Part documents the methods

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from monitor.files.threads import call_aside
from monitor.log_limits import RateLimitedLog
from monitor.metrics import Metric
from monitor.part import Health, Part, State
from monitor.relay.channels import Channels
from monitor.relay.delivery import Delivery, shown
from monitor.relay.feed import Feed, SteadyTime
from monitor.relay.protocol import Message
from monitor.relay.receiver import Receiver
from monitor.relay.saving import Saving
from monitor.relay.server import Server
from monitor.relay.settings import RelaySettings, read_curve_keys, read_tls
from monitor.settings import Address, address_text, state_directory
from monitor.sqlite.file import OpenFile

__all__ = ["Relay"]

logger = logging.getLogger("monitor.relay")
_ends_log = RateLimitedLog(logger, lines=300, period_s=30)

_DRAIN_S = 3.0
# For handshakes in progress, listeners and refused clients, in addition to max_clients.
_SPARE_DESCRIPTORS = 384


class Relay(Part):
    """Job progress from ZeroMQ to WebSocket."""

    name = "relay"

    def __init__(
        self,
        settings: RelaySettings,
        *,
        websocket_uri: Address,
        zeromq_uri: Address,
        stop: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._time = SteadyTime(time.time)
        self._stop = stop
        self._tls = None if settings.tls is None else _Certificates(read_tls(settings.tls))
        self.channels = Channels(settings)
        self.feed = Feed()
        self.delivery = Delivery(self.channels, self.feed, clock)
        served = None if self._tls is None else self._tls.served
        self.server = Server(websocket_uri, self.delivery, tls=served, clock=clock)
        self._saving: Saving | None = None
        if settings.history_file is not None:
            path = state_directory() / settings.history_file
            self._saving = Saving(path, self.channels, self.feed, clock=clock, time=self._time)
        self.receiver = Receiver(
            zeromq_uri,
            max_frame_bytes=settings.max_message_bytes,
            # What waits for a flush and one batch more must not overrun a client that kept up.
            batch=lambda: max(self._settings.max_messages // 2, 1),
            curve=settings.curve,
            deliver=self._deliver,
            delivered=self.delivery.received_all,
            brokers_changed=self._brokers_changed,
        )

    def now(self) -> float:
        """Return the time (s) on the clock that channels are timed by."""
        return self._clock()

    def descriptors(self) -> int:
        """One descriptor per client, and some for clients that are connecting."""
        return self._settings.max_clients + _SPARE_DESCRIPTORS

    async def start(self) -> None:
        if self._saving is not None:
            await self._saving.start()
        await self.server.start()
        await self.receiver.start()
        for address in self.server.addresses:
            scheme = "wss" if self._tls is not None else "ws"
            logger.info("listening for subscribers on %s://%s", scheme, address_text(address))
        for endpoint in self.receiver.endpoints:
            curve = ", with CURVE" if self._settings.curve is not None else ""
            logger.info("listening for brokers on %s%s", endpoint, curve)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_after(), name="relay:look-after")
            if self._saving is not None:
                tasks.create_task(self._saving.run(), name="relay:saving")

    async def _look_after(self) -> None:
        while True:
            for channel in self.channels.expire(self._clock()):
                logger.info("channel %s ended: no more messages came", shown(channel.name))
                self.delivery.changed(channel)
            self.delivery.sweep()
            await asyncio.sleep(1)

    async def drain(self) -> None:
        """Stop receiving; send every client what is queued, and close with 1001."""
        self.receiver.stop()
        await asyncio.gather(
            self.server.drain(_DRAIN_S),
            *([self._saving.save()] if self._saving is not None else []),
        )

    async def close(self) -> None:
        self.receiver.close()
        await self.server.close()
        if self._saving is not None:
            await self._saving.close()

    def _deliver(self, message: Message) -> None:
        if (
            message.channel == b"0"
            and message.command == b"exit"
            and self._settings.allow_remote_exit
        ):
            self._stop("a remote exit command")
            return
        frame = message.frame
        channel = self.channels.publish(
            message.channel, message.command, frame, self._clock(), self._time()
        )
        if channel is None:
            return
        self.delivery.received(channel, len(frame))
        if channel.ended:
            _ends_log.info(
                "channel finished",
                "channel %s finished, %d messages",
                shown(channel.name),
                channel.end,
            )

    def _brokers_changed(self, count: int) -> None:
        feed, now = self.feed, self._time()
        came, feed.brokers = count > feed.brokers, count
        if came:
            feed.back(now)
        else:
            feed.lost(now)
        self.delivery.feed_changed("up" if came else "lost" if count else "down")

    def state(self) -> State:
        if self._saving is not None and self._saving.outage.problem is not None:
            return State(Health.DEGRADED, self._saving.outage.summary)
        clients, channels = self.server.client_count, len(self.channels)
        return State(
            Health.OK, f"{clients} clients, {channels} channels, {self.receiver.received} messages"
        )

    def open_files(self) -> Sequence[OpenFile]:
        return () if self._saving is None else self._saving.open_files()

    def metrics(self) -> Iterable[Metric]:
        rejected = {**self.receiver.rejected, **self.delivery.faults}
        yield Metric(
            "relay_clients", "gauge", "Connected clients", [({}, self.server.client_count)]
        )
        yield Metric("relay_channels", "gauge", "Channels kept", [({}, len(self.channels))])
        yield Metric(
            "relay_history_bytes",
            "gauge",
            "Histories, bookkeeping included",
            [({}, self.channels.history_bytes)],
        )
        yield Metric(
            "relay_messages_total", "counter", "Messages received", [({}, self.receiver.received)]
        )
        yield Metric(
            "relay_deliveries_total",
            "counter",
            "Messages written to clients",
            [({}, self.delivery.deliveries)],
        )
        yield Metric(
            "relay_rejected_total",
            "counter",
            "Messages and clients refused",
            [({"reason": reason}, count) for reason, count in rejected.items()],
        )
        yield Metric(
            "relay_disconnects_total",
            "counter",
            "Subscribers disconnected, by close code",
            [({"code": code}, count) for code, count in self.server.disconnects.items()],
        )
        failed = dict(self.delivery.recoveries)
        exact = failed.pop("")
        yield Metric(
            "relay_recoveries_total",
            "counter",
            "Subscriptions that resumed exactly",
            [({}, exact)],
        )
        yield Metric(
            "relay_recovery_failures_total",
            "counter",
            "Subscriptions not resumed exactly: another epoch, ahead of the history, or trimmed",
            [({"reason": reason}, count) for reason, count in failed.items()],
        )
        yield Metric(
            "relay_feed_up", "gauge", "Whether a broker is connected", [({}, int(self.feed.up))]
        )
        yield Metric(
            "relay_feed_interruptions_total",
            "counter",
            "Lost connections of brokers, and restarts",
            [({}, self.feed.interruptions)],
        )

        if self._saving is not None:
            yield Metric(
                "relay_history_saved_bytes_total",
                "counter",
                "Messages written to the history file",
                [({}, self._saving.saved_bytes)],
            )
            yield Metric(
                "relay_history_failures_total",
                "counter",
                "Writes to the history file that failed and are retried",
                [({}, self._saving.failures)],
            )

    async def prepare(self, settings: Any) -> Callable[[], None]:
        """Read certificates and keys again; the switch adopts the new settings."""
        assert isinstance(settings, RelaySettings)
        adopted = self._settings.adopting(settings)
        tls = curve = None
        if settings.tls is not None:
            tls = await call_aside(read_tls, settings.tls)
        if settings.curve is not None:
            curve = await call_aside(read_curve_keys, settings.curve)
            if adopted.curve != settings.curve:
                # Another section is taken up by a restart; until then the keys of this one count.
                curve = None
                if adopted.curve is not None:
                    curve = await call_aside(read_curve_keys, adopted.curve)

        def switch() -> None:
            self._settings = adopted
            self.channels.adopt(adopted)
            # A section that the file no longer has stays in force, and its files may be gone.
            if self._tls is not None and tls is not None:
                self._tls.adopt(tls)
            if curve is not None:
                self.receiver.adopt_keys(curve)

        return switch


class _Certificates:
    """A TLS context to serve with, whose certificate a reload can change."""

    def __init__(self, first: ssl.SSLContext) -> None:
        self.served = first
        self._newest = first
        # OpenSSL asks at each handshake, also where the client names no host.
        first.sni_callback = self._choose

    def adopt(self, context: ssl.SSLContext) -> None:
        """Use the certificate of another context for new handshakes; connections stay."""
        self._newest = context

    def _choose(self, handshake: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> None:
        del host
        handshake.context = self._newest
