"""A client that reads one topic of Kafka. Blocks; used by one thread.

Three things may be wrong with a place to read from, and kafka-python's own answers to them lose
messages silently, so the reader has no reset policy:

- The topic was deleted and created again. An offset is a place in one incarnation of a topic only,
  so the reader knows the topic's id, and reports a new one before it reads anything.
- Kafka has deleted the messages at the place (retention). The reader counts them and continues at
  the earliest message.
- A batch cannot be decoded. The reader sets its partition aside and tries again later; the other
  partitions continue.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import OffsetAndMetadata

from monitor.bus.interface import Record
from monitor.bus.kafka_aside import PartitionsAside, pending_error, undecodable
from monitor.bus.kafka_client import ClientOptions, make_client
from monitor.bus.kafka_lost import OFFSETS_MS, LostPlaces
from monitor.bus.kafka_topics import ensure_topic
from monitor.bus.kafka_unpacking import decode_in_one_pass, poll_records
from monitor.bus.settings import KafkaSettings
from monitor.yielding import yield_to_loop

__all__ = ["KafkaTopicReader", "Rebalances"]

logger = logging.getLogger("monitor.bus")

_COMMIT_MS = 5000
_CLOSE_MS = 2000
# Records that the client decodes, in Python, before the loop gets a turn: about 2 ms.
_PIECE_RECORDS = 400
_SESSION_MS = 30_000
_HEARTBEAT_MS = 3000
# A topic that is created again, or has more partitions, is noticed after this time at the latest.
_METADATA_MS = 5000
_REFRESH_S = 5.0
_FETCH_BYTES = 8_388_608


class Rebalances(Protocol):
    """What a reader calls when its partitions change, in its thread."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the offsets to start from; other partitions start as the group committed."""

    def revoked(self, partitions: Sequence[int]) -> None:
        """Finish what was read of the partitions."""


class _TopicGoneError(kafka_errors.UnknownTopicOrPartitionError):  # type: ignore[misc]
    """The topic is missing, or is another one than before: the client has to be made again."""


class KafkaTopicReader:
    """Reads ``topic``, as a member of ``group`` if it is not None.

    Without a group it reads all partitions: each from where ``rebalances`` says, else from the
    first message at or after ``since`` (epoch s), else from the earliest. ``configs`` are Kafka's
    settings of the topic if it has to be created.

    ``expired`` is called with the number of messages that were deleted before they were read, and
    ``trouble`` with what is wrong with single partitions, or None. All methods may raise FAILURES
    of kafka_client; afterwards call :meth:`close`, and the next poll connects again.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        *,
        group: str | None,
        rebalances: Rebalances,
        expired: Callable[[int], None],
        trouble: Callable[[str | None], None],
        since: float | None = None,
        configs: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._configs = configs
        self._group = group
        self._since = since
        self._rebalances = rebalances
        self._options = ClientOptions(settings)
        self._client: Any = None
        self._cluster: Any = None
        # Assigned at present, and those of the last client whose messages may not be finished.
        self.partitions: frozenset[int] = frozenset()
        self._unfinished: set[int] = set()
        self.topic_id: str | None = None
        # Counts rebalances: records from before the last one are dropped.
        self._changes = 0
        self._aside = PartitionsAside(topic, trouble)
        self._lost = LostPlaces(topic, expired if group is not None else None)
        self.stopping = False

    @property
    def connected(self) -> bool:
        """Whether there is a client."""
        return self._client is not None

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Return the next records, connecting first if necessary."""
        if self._client is None:
            self._connect()
        self._look_at_topic()
        self._finish_joining()
        self._client.resume(*self._places(self._aside.due(time.monotonic())))
        records: list[Record] = []
        wait_ms = round(timeout_s * 1000)
        while True:
            changes = self._changes
            limit = min(max_records - len(records), _PIECE_RECORDS)
            found = self._poll_once(wait_ms, limit)
            if self._changes != changes:
                # A rebalance: partitions that are assigned again are read again from their offset.
                records.clear()
                self._look_at_topic()
            records += found
            if len(found) < limit or len(records) >= max_records or self.stopping:
                return records
            wait_ms = 0
            yield_to_loop()

    def _poll_once(self, wait_ms: int, limit: int) -> list[Record]:
        try:
            records = poll_records(self._client, timeout_ms=wait_ms, max_records=limit)
        except kafka_errors.OffsetOutOfRangeError as error:
            self._refresh()
            self._look_at_topic()
            self._lost.move(self._client, error.args[0])
            return []
        except kafka_errors.NoOffsetForPartitionError as error:
            # The group has committed nothing there.
            self._client.seek_to_beginning(*error.args[0])
            return []
        except kafka_errors.LogTruncationError as error:
            self._lost.after_truncation(self._client, error.divergent_offsets)
            return []
        except Exception as error:
            if not self._set_aside(error):
                raise
            return []
        if (later := pending_error(self._client)) is not None:
            self._set_aside(later)
        self._aside.read({record.partition for record in records})
        return records

    def _finish_joining(self) -> None:
        """Let the client finish a rebalance that the last poll did not wait for.

        kafka-python 3.0.12 forgets one that it began for new partitions, and then reads nothing.
        """
        coordinator = self._client._coordinator
        if coordinator.rejoining and not coordinator.rejoin_needed:
            coordinator.request_rejoin()

    def _set_aside(self, error: Exception) -> bool:
        failed = undecodable(self._client, error)
        if failed is None:
            return False
        partition, offset = failed
        self._client.pause(*self._places([partition]))
        self._aside.add(partition, offset, error, now=time.monotonic())
        return True

    def idle(self) -> None:
        """Stay in the group without reading."""
        if self._client is None:
            return
        self._client.pause(*self._client.assignment())
        try:
            self._client.poll(timeout_ms=0)
        finally:
            # A rebalance during poll() may have changed the assignment.
            read = self._client.assignment() - set(self._places(self._aside.partitions()))
            self._client.resume(*read)

    def seek(self, partition: int, offset: int, again: int = 0) -> None:
        """Read ``offset`` next, after up to ``again`` messages before it that are still there."""
        if self._client is None:
            return
        place = TopicPartition(self._topic, partition)
        if again and offset:
            # A place before the earliest message would count as messages that were lost.
            earliest = self._client.beginning_offsets([place], timeout_ms=OFFSETS_MS)[place]
            offset = min(offset, max(earliest, offset - again))
        self._client.seek(place, offset)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets to the group."""
        mine = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
            if partition in self.partitions
        }
        if self._client is not None and mine:
            self._client.commit(mine, timeout_ms=_COMMIT_MS)

    def lag(self) -> dict[int, int]:
        """Return the number of unread messages, of the partitions whose end is known."""
        lag = {}
        for partition in self.partitions if self._client is not None else ():
            (place,) = self._places([partition])
            end = self._client.highwater(place)
            if end is not None:
                position = self._client.position(place, timeout_ms=1000) or 0
                lag[partition] = max(0, end - position)
        return lag

    def close(self) -> None:
        """Leave the group and close the client; the next poll makes another."""
        client, self._client = self._client, None
        if client is not None:
            try:
                client.close(autocommit=False, timeout_ms=_CLOSE_MS)
            except (kafka_errors.KafkaError, OSError, AssertionError) as error:
                logger.debug("consumer of %s: closing failed: %s", self._topic, error)
        self.partitions = frozenset()

    # The topic

    def _connect(self) -> None:
        ensure_topic(self._settings, self._options, self._topic, configs=self._configs)
        client = make_client(
            KafkaConsumer,
            self._options,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=self._settings.isolation_level,
            allow_auto_create_topics=False,
            metadata_max_age_ms=_METADATA_MS,
            fetch_max_bytes=_FETCH_BYTES,
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            max_poll_interval_ms=300_000,
            partition_assignment_strategy=(RangePartitionAssignor,),
            metrics_enabled=False,
        )
        decode_in_one_pass(client)
        self._client = client
        self._aside.clear()
        self._cluster = client._client.cluster
        if self._group is None:
            self._cluster.add_topic(self._topic)
        else:
            # Before the metadata is fetched: it would look like new, and cause a rebalance.
            client.subscribe([self._topic], listener=_Listener(self))
        self._refresh()
        # The id has to be known before anything is read: see the module.
        self._take_topic_id()
        if self._group is None:
            self._read_all_from({})

    def _take_topic_id(self) -> None:
        found = self._found_topic_id()
        if self.topic_id is not None and found not in (self.topic_id, None):
            logger.warning(
                "the topic %s was deleted and created again; reading it from its beginning",
                self._topic,
            )
            # What was read of the old topic is finished under its id.
            self.revoked(sorted(self._unfinished))
            self._lost.clear()
        self.topic_id = found

    def _found_topic_id(self) -> str | None:
        """Return the id that the last metadata had; None from brokers older than 2.8."""
        found: uuid.UUID | None = self._cluster.topic_id(self._topic)
        return str(found) if found else None

    def _refresh(self) -> None:
        """Fetch the topic's metadata."""
        until = time.monotonic() + _REFRESH_S
        done = self._cluster.request_update()
        while not done.is_done or not self._cluster.partitions_for_topic(self._topic):
            if time.monotonic() >= until:
                raise _TopicGoneError(self._topic)
            if done.is_done:
                done = self._cluster.request_update()
            time.sleep(0.01)

    def _look_at_topic(self) -> None:
        """Raise an error if the topic is gone or another one, or may not be read any more."""
        if self._topic in self._cluster.unauthorized_topics:
            raise kafka_errors.TopicAuthorizationFailedError(self._topic)
        partitions = self._cluster.partitions_for_topic(self._topic)
        if not partitions or self._found_topic_id() != self.topic_id:
            raise _TopicGoneError(self._topic)
        if self._group is None and partitions != self.partitions:
            places = self._places(self.partitions)
            self._read_all_from({place.partition: self._client.position(place) for place in places})

    def _read_all_from(self, positions: Mapping[int, int | None]) -> None:
        """Read all partitions without a group; new ones from where the user wants to begin."""
        self.partitions = frozenset(self._cluster.partitions_for_topic(self._topic) or ())
        places = self._places(sorted(self.partitions))
        self._client.assign(places)
        new = [place for place in places if positions.get(place.partition) is None]
        wanted = self._rebalances.assigned([place.partition for place in new]) if new else {}
        starts = self._starts([place for place in new if place.partition not in wanted])
        for place in places:
            position = positions.get(place.partition)
            if position is None:
                position = wanted.get(place.partition, starts.get(place))
            if position is None:
                self._client.seek_to_beginning(place)
            else:
                self._client.seek(place, position)

    def _starts(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where to begin because of the time; a place without it begins at the earliest."""
        if self._since is None or not places:
            return {}
        wanted = dict.fromkeys(places, round(self._since * 1000))
        found = self._client.offsets_for_times(wanted, timeout_ms=OFFSETS_MS)
        late = [place for place in places if found.get(place) is None]
        # All that a partition has is older, or it has nothing.
        ends = self._client.end_offsets(late, timeout_ms=OFFSETS_MS) if late else {}
        return {place: found[place].offset for place in places if found.get(place)} | dict(ends)

    def _places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in partitions]

    # Rebalances

    def assigned(self, partitions: Sequence[int]) -> None:
        """Note the partitions and seek to their offsets."""
        self._changes += 1
        # A partition that stays assigned stays paused, too.
        self._client.resume(*self._client.paused())
        self._aside.clear()
        if not partitions or self._found_topic_id() != self.topic_id:
            # Of another topic there may be messages already: poll() will connect again.
            self.partitions = frozenset()
            return
        self.partitions = frozenset(partitions)
        self._unfinished.update(partitions)
        for partition, offset in self._rebalances.assigned(partitions).items():
            if partition in self.partitions:
                self.seek(partition, offset)

    def revoked(self, partitions: Sequence[int]) -> None:
        """Finish the partitions."""
        self._changes += 1
        if partitions:
            self._rebalances.revoked(partitions)
        self._unfinished.difference_update(partitions)
        self.partitions = self.partitions - set(partitions)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, reader: KafkaTopicReader) -> None:
        self._reader = reader

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._reader.revoked(sorted(place.partition for place in revoked))

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._reader.assigned(sorted(place.partition for place in assigned))
