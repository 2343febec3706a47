"""``relay.topic``, through which several relays serve the same channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from monitor.bus.interface import DirectTopic
from monitor.metrics import Metric
from monitor.relay.channel import Channel
from monitor.relay.delivery import Delivery
from monitor.relay.feed import SteadyTime
from monitor.relay.following import Following
from monitor.relay.handover import Handover
from monitor.relay.protocol import Message
from monitor.relay.publishing import Publishing
from monitor.relay.replicas import Again
from monitor.relay.shared_channels import SharedChannels

__all__ = ["Sharing"]

_GOODBYE_S = 2.0
# The time of day of another host is believed if it is at most this many s ahead.
_AHEAD_S = 60.0


class Sharing:
    """The topic of the relays. ``brokers`` returns how many brokers this relay has itself.

    ``publish`` is called with a channel's name and a message to publish here as a new one,
    ``brokers_changed`` with the time when the other relays' brokers changed (0 if only what is
    known of them), ``ready`` once the histories of the topic are here. ``hold`` is called when
    brokers are not to be read, then ``deliver`` with the messages that waited, and ``go_on``.
    """

    def __init__(
        self,
        topic: DirectTopic,
        channels: SharedChannels,
        delivery: Delivery,
        *,
        brokers: Callable[[], int],
        publish: Callable[[bytes, Again], None],
        brokers_changed: Callable[[float], None],
        ready: Callable[[], None],
        hold: Callable[[], None],
        deliver: Callable[[Message], None],
        go_on: Callable[[], None],
        clock: Callable[[], float],
        time: SteadyTime,
    ) -> None:
        self._topic = topic
        self._channels = channels
        self._delivery = delivery
        self._time = time
        self._waits = True
        self._publishing = Publishing(topic, channels, brokers=brokers, time=time)
        self._handover = Handover(
            mark=self._publishing.mark, hold=hold, deliver=deliver, go_on=go_on
        )
        self._following = Following(
            topic,
            channels,
            changed=delivery.received,
            applied=self._applied,
            again=publish,
            brokers_changed=brokers_changed,
            marked=self._handover.read,
            ready=ready,
            clock=clock,
            time=time,
        )

    @property
    def brokers(self) -> int:
        """How many brokers the other relays have."""
        return self._following.brokers

    @property
    def is_ready(self) -> bool:
        """Whether the histories of the topic are here, or Kafka is unavailable for too long."""
        return self._following.is_ready

    @property
    def problem(self) -> str | None:
        """What keeps it from reading or publishing."""
        if self._following.trouble is not None:
            return f"{self._following.trouble}; serving what this relay has"
        outage = self._publishing.outage
        return None if outage.problem is None else outage.summary

    async def run(self) -> None:
        """Read and publish, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._following.run(), name="relay:following")
            tasks.create_task(self._publish(), name="relay:publishing")

    async def _publish(self) -> None:
        # What is not read yet decides how a channel continues.
        await self._following.wait_caught_up()
        await self._publishing.run()

    def keep_waiting(self, message: Message) -> bool:
        """Return whether a message waits: others do, or it continues another relay's channel."""
        waits = self._waits and self.problem is None
        continues = waits and self._other(message.channel) is not None
        if continues or self._handover.is_waiting:
            return self._handover.wait(message, mark=continues)
        return False

    def wait_no_more(self) -> None:
        """Deliver what waits, and at once whatever comes."""
        self._waits = False
        self._handover.end()

    def before_message(self, name: bytes) -> None:
        """Let a channel of another relay continue here if its next message comes here."""
        channel = self._other(name)
        if channel is not None:
            self._channels.take_over(channel)
            # Frames that were made under the old epoch.
            self._delivery.turn.clear()

    def _other(self, name: bytes) -> Channel | None:
        """Return the channel of that name if it is another relay's and has not ended."""
        channel = self._channels.get(name)
        if channel is None or not channel.end or channel.ended or self._channels.is_own(channel):
            return None
        return channel

    def wake(self) -> None:
        """Publish what is new."""
        if self._channels.unsaved:
            self._publishing.wake()

    def brokers_differ(self) -> None:
        """Tell the others how many brokers there are now."""
        self._publishing.wake()

    async def drain(self) -> None:
        """Publish the rest, in two seconds."""
        if self._following.caught_up:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._publishing.say_goodbye()

    async def close(self) -> None:
        """Release everything."""
        await self._topic.close()

    def _applied(self) -> None:
        following = self._following
        self._delivery.turn.clear()
        self._delivery.received_all()
        latest = following.latest_at
        if latest <= self._time.now() + _AHEAD_S:
            self._time.not_before(latest)

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics of the topic."""
        publishing, following = self._publishing, self._following
        yield Metric(
            "relay_topic_published_total",
            "counter",
            "Messages that Kafka acknowledged for the other relays",
            [({}, publishing.published)],
        )
        yield Metric(
            "relay_topic_unpublished_channels",
            "gauge",
            "Channels with something that the other relays do not have yet",
            [({}, publishing.unpublished)],
        )
        yield Metric(
            "relay_topic_lost_total",
            "counter",
            "Messages dropped here before the other relays had them, or refused by Kafka",
            [({}, publishing.lost)],
        )
        yield Metric(
            "relay_topic_received_total",
            "counter",
            "Messages of other relays",
            [({}, following.received)],
        )
        yield Metric(
            "relay_topic_rejected_total",
            "counter",
            "Records of the topic that no relay can have written",
            [({}, following.rejected)],
        )
        yield Metric(
            "relay_topic_lag",
            "gauge",
            "Records of the topic that are not read yet",
            [({}, following.lag)],
        )
        yield Metric(
            "relay_topic_delay_seconds",
            "gauge",
            "From another relay's broker to here, of the last message",
            [({}, following.delay_s)],
        )
        yield Metric(
            "relay_topic_brokers",
            "gauge",
            "Brokers that are connected to other relays",
            [({}, following.brokers)],
        )
