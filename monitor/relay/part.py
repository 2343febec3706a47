"""The relay as a part of the daemon: receiver, channels and server put together."""

# ruff: noqa: D102 - Part documents the methods

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from monitor.bus.interface import DirectTopic
from monitor.files.threads import call_aside
from monitor.log_limits import OutageLog, RateLimitedLog
from monitor.metrics import Metric
from monitor.part import Health, Part, State, counted
from monitor.relay.channels import Channels
from monitor.relay.counted import relay_metrics
from monitor.relay.delivery import Delivery, shown
from monitor.relay.feed import Feed, SteadyTime
from monitor.relay.open_receiver import MOST_PEERS, OpenReceiver
from monitor.relay.protocol import Message
from monitor.relay.receiver import Receiver
from monitor.relay.replicas import Again
from monitor.relay.saving import Saving
from monitor.relay.server import Server
from monitor.relay.settings import RelaySettings
from monitor.relay.shared_channels import SharedChannels
from monitor.relay.sharing import Sharing
from monitor.settings import Address, ListenAddress, address_text, state_directory
from monitor.sqlite.file import OpenFile
from monitor.transport.curve import keys_after_reload
from monitor.transport.tls import Certificates, read_tls
from monitor.transport.tls_server import MOST_HANDSHAKES, MOST_WAITING
from monitor.yielding import over_turns

__all__ = ["Relay"]

logger = logging.getLogger("monitor.relay")
_ends_log = RateLimitedLog(logger, lines=300, period_s=30)

_DRAIN_S = 3.0
# For brokers, handshakes in progress, listeners and refused clients, in addition to max_clients.
_SPARE_DESCRIPTORS = 256 + MOST_PEERS


class Relay(Part):
    """Job progress from ZeroMQ to WebSocket."""

    name = "relay"

    def __init__(
        self,
        settings: RelaySettings,
        *,
        websocket_uri: ListenAddress,
        zeromq_uri: Address,
        stop: Callable[[str], None],
        topic: DirectTopic | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._time = SteadyTime(time.time)
        self._stop = stop
        self._tls = None if settings.tls is None else Certificates(read_tls(settings.tls))
        shared = None if topic is None else SharedChannels(settings)
        self.channels = Channels(settings) if shared is None else shared
        self.feed = Feed()
        self.delivery = Delivery(self.channels, self.feed, clock)
        served = None if self._tls is None else self._tls.served
        self.server = Server(websocket_uri, self.delivery, tls=served, clock=clock)
        self._saving: Saving | None = None
        if settings.history_file is not None:
            path = state_directory() / settings.history_file
            self._saving = Saving(path, self.channels, self.feed, clock=clock, time=self._time)
        self._sharing: Sharing | None = None
        if topic is not None and shared is not None:
            self._sharing = Sharing(
                topic,
                shared,
                self.delivery,
                brokers=lambda: self._own_brokers,
                publish=self._publish_again,
                brokers_changed=self._other_brokers_changed,
                ready=self._ready,
                hold=self._hold,
                deliver=self._deliver_now,
                go_on=self._go_on,
                clock=clock,
                time=self._time,
            )
            self.server.unready = "reading the histories of other relays"
        # Brokers that are connected here.
        self._own_brokers = 0
        self.receiver = self._make_receiver(zeromq_uri)

    def _make_receiver(self, address: Address) -> Receiver:
        settings = self._settings
        options: dict[str, Any] = {
            "max_frame_bytes": settings.max_message_bytes,
            # What waits for a flush and one batch more must not overrun a client that kept up.
            "batch": lambda: max(self._settings.max_messages // 2, 1),
            "deliver": self._deliver,
            "delivered": self._delivered,
            "brokers_changed": self._brokers_changed,
        }
        if settings.curve is None:
            return OpenReceiver(address, **options)
        from monitor.relay.router_receiver import RouterReceiver

        return RouterReceiver(address, curve=settings.curve, **options)

    def now(self) -> float:
        """Return the time (s) on the clock that channels are timed by."""
        return self._clock()

    def descriptors(self) -> int:
        """One descriptor per client, and some for clients that are connecting."""
        handshakes = 0 if self._tls is None else MOST_HANDSHAKES + MOST_WAITING
        return self._settings.max_clients + _SPARE_DESCRIPTORS + handshakes

    async def start(self) -> None:
        if self._saving is not None:
            await self._saving.start()
        await self.server.start()
        # With a topic, what brokers send waits until it is known how the channels continue.
        await self.receiver.start(read=self._sharing is None)
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
            if self._sharing is not None:
                tasks.create_task(self._sharing.run(), name="relay:sharing")
            if self._tls is not None:
                renewal = OutageLog(logger, subject="relay.tls", outcome="keeping the old files")
                follow = self._tls.follow(
                    lambda: self._settings.tls,
                    renewed=lambda: self._renewed(renewal),
                    failed=renewal.failed,
                )
                tasks.create_task(follow, name="relay:tls")

    def _renewed(self, renewal: OutageLog) -> None:
        renewal.recovered("the new files can be used")
        logger.info("relay.tls: using the new certificate")

    async def _look_after(self) -> None:
        while True:
            for channel in self.channels.expire(self._clock()):
                logger.info("channel %s ended: no more messages came", shown(channel.name))
                self.delivery.changed(channel)
            async for subscriber in over_turns(self.channels.unheard(self._clock())):
                # A message may have come meanwhile.
                if subscriber.channel is not None and subscriber.channel.is_empty:
                    subscriber.give_up()
            if self._sharing is not None:
                self._sharing.wake()
            await self.delivery.sweep()
            await asyncio.sleep(1)

    async def drain(self) -> None:
        """Stop receiving; send every client what is queued, and close with 1001."""
        if self._sharing is not None:
            self._sharing.wait_no_more()
        self.receiver.stop()
        await asyncio.gather(
            self.server.drain(_DRAIN_S),
            *([self._saving.save()] if self._saving is not None else []),
            *([self._sharing.drain()] if self._sharing is not None else []),
        )

    async def close(self) -> None:
        self.receiver.close()
        await self.server.close()
        if self._saving is not None:
            await self._saving.close()
        if self._sharing is not None:
            await self._sharing.close()

    def _deliver(self, message: Message) -> None:
        if (
            message.channel == b"0"
            and message.command == b"exit"
            and self._settings.allow_remote_exit
        ):
            self._stop("a remote exit command")
            return
        if self._sharing is None:
            self._publish(message.channel, message.command, message.frame)
        elif not self._sharing.keep_waiting(message):
            self._deliver_now(message)

    def _deliver_now(self, message: Message) -> None:
        assert self._sharing is not None
        self._sharing.before_message(message.channel)
        self._publish(message.channel, message.command, message.frame)

    def _publish(self, name: bytes, command: bytes, frame: bytes) -> None:
        channel = self.channels.publish(name, command, frame, self._clock(), self._time())
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

    def _delivered(self) -> None:
        self.delivery.received_all()
        if self._sharing is not None:
            self._sharing.wake()

    def _brokers_changed(self, count: int) -> None:
        self._own_brokers = count
        if self._sharing is not None:
            self._sharing.brokers_differ()
            count += self._sharing.brokers
        self._feed_is(count, self._time())

    def _feed_is(self, count: int, at: float) -> None:
        feed = self.feed
        came, feed.brokers = count > feed.brokers, count
        if came:
            feed.back(at)
        else:
            feed.lost(at)
        self.delivery.feed_changed("up" if came else "lost" if count else "down")

    # Other relays

    def _ready(self) -> None:
        self.server.unready = ""
        self.receiver.begin()

    def _hold(self) -> None:
        self.receiver.hold()

    def _go_on(self) -> None:
        self._delivered()
        self.receiver.begin()

    def _publish_again(self, name: bytes, message: Again) -> None:
        assert self._sharing is not None
        self._sharing.before_message(name)
        self._publish(name, *message)
        self._sharing.wake()

    def _other_brokers_changed(self, at: float) -> None:
        assert self._sharing is not None
        count = self._own_brokers + self._sharing.brokers
        if at:
            self._feed_is(count, at)
        elif count != self.feed.brokers:
            # Nothing is lost, but for now it is not known whether brokers are connected.
            came, self.feed.brokers = count > self.feed.brokers, count
            self.delivery.feed_changed("up" if came else "lost" if count else "down")

    def state(self) -> State:
        if self._saving is not None and self._saving.outage.problem is not None:
            return State(Health.DEGRADED, self._saving.outage.summary)
        late = None if self._saving is None else self._saving.writing.problem()
        if late is not None:
            return State(Health.DEGRADED, late)
        if self._sharing is not None:
            if not self._sharing.is_ready:
                return State(Health.STARTING, "reading relay.topic")
            if self._sharing.problem is not None:
                return State(Health.DEGRADED, f"relay.topic: {self._sharing.problem}")
        clients = counted(self.server.client_count, "client")
        channels = counted(len(self.channels), "channel")
        messages = counted(self.receiver.received, "message")
        summary = f"{clients}, {channels}, {messages}"
        if self._tls is None:
            return State(Health.OK, summary)
        health = Health.DEGRADED if self._tls.has_expired else Health.OK
        return State(health, f"{summary}, {self._tls.summary}")

    def open_files(self) -> Sequence[OpenFile]:
        return () if self._saving is None else self._saving.open_files()

    def metrics(self) -> Iterable[Metric]:
        yield from relay_metrics(self.receiver, self.server, self.delivery, self._saving)
        if self._tls is not None:
            yield from self._tls.metrics("relay_certificate_expires_at_seconds")
        if self._sharing is not None:
            yield from self._sharing.metrics()

    async def prepare(self, settings: Any) -> Callable[[], None]:
        """Read certificates and keys again; the switch adopts the new settings."""
        assert isinstance(settings, RelaySettings)
        adopted = self._settings.adopting(settings)
        tls = None
        if settings.tls is not None:
            tls = await call_aside(read_tls, settings.tls)
        curve = await call_aside(keys_after_reload, adopted.curve, settings.curve)

        def switch() -> None:
            self._settings = adopted
            self.channels.adopt(adopted)
            # A section that the file no longer has stays in force, and its files may be gone.
            if self._tls is not None and tls is not None:
                self._tls.adopt(tls)
            if curve is not None:
                self.receiver.adopt_keys(curve)

        return switch
