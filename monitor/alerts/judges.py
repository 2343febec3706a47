"""The judges of the topics: messages of the bus for the pure state machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from monitor.alerts.incidents import Changes, State
from monitor.alerts.jobs import JobFacts
from monitor.alerts.judging import Judged, ResultJudge
from monitor.alerts.result_view import RESULT_TYPE, ResultView, read_result
from monitor.alerts.rollouts import RolloutEvent, judge_rollouts, read_event
from monitor.alerts.settings import RolloutRule, Rule, SilenceRule
from monitor.alerts.tables import note_seen
from monitor.alerts.transitions import Observed
from monitor.bus import Record
from monitor.messages import unwrap
from monitor.store import Connection
from monitor.yielding import in_slices

__all__ = ["Results", "Rollouts"]

_SEEN_S = 5.0
# How many model events are remembered, to recognize one that is published again.
_EVENTS = 4000


class Results:
    """Judges results; ``seen`` has when the last result of each job was made (s since epoch).

    ``too_few`` says which jobs have fewer locations than their quorum, if some have. ``rules`` and
    ``jobs`` return those of now.
    """

    def __init__(
        self,
        rules: Callable[[], Sequence[Rule]],
        jobs: Callable[[], Mapping[int, JobFacts] | None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._jobs = jobs
        self._clock = clock
        self._judge = ResultJudge()
        self._unwritten: dict[int, float] = {}
        self._seen_written_at = 0.0
        self.seen: dict[int, float] = {}
        self.too_few: str | None = None

    def load(self, states: Iterable[tuple[str, str, State]]) -> None:
        """See :class:`Judge`."""
        self._judge.load(states)

    def remember(self, records: Sequence[Record]) -> None:
        """See :class:`Judge`."""
        now = self._clock()
        found = (_result(record, now) for record in in_slices(records))
        self._judge.remember(result for result in found if result is not None)

    def judge(self, records: Sequence[Record], late: Sequence[bool]) -> Judged:
        """See :class:`Judge`."""
        rules = self._rules()
        self._judge.adopt(rules, self._jobs())
        now = self._clock()
        observed = []
        for record, is_late in in_slices(zip(records, late, strict=True)):
            result = _result(record, now)
            if result is not None:
                observed.append(Observed(result, record.timestamp, is_late))
        judged = self._judge.judge(in_slices(observed))
        if any(isinstance(rule, SilenceRule) for rule in rules):
            # The clock of a producer may be ahead of this one.
            seen = {each.result.job_id: min(each.result.checked_at, now) for each in observed}
            self.seen.update(seen)
            self._unwritten.update(seen)
        if not judged:
            # What it has seen changes nothing, and needs no commit.
            self._judge.apply(judged)
        return judged

    def idle(self) -> Changes:
        """End the incidents of jobs that were removed or stopped."""
        self._judge.adopt(self._rules(), self._jobs())
        self.too_few = self._judge.too_few()
        return self._judge.gone(self._clock())

    def apply(self, changes: Changes) -> None:
        """See :class:`Judge`."""
        self._judge.apply(changes)

    def write(self, connection: Connection) -> None:
        """Note when jobs were seen last, now and then."""
        now = self._clock()
        if self._unwritten and abs(now - self._seen_written_at) >= _SEEN_S:
            self._seen_written_at = now
            unwritten, self._unwritten = self._unwritten, {}
            note_seen(connection, unwritten)


class Rollouts:
    """Judges model events, each once: a cluster part that crashed may publish its last ones again.

    These are a thousand at most, with the same ids.
    """

    def __init__(self, rules: Callable[[], Sequence[Rule]]) -> None:
        self._rules = rules
        self._states: dict[tuple[str, str], State] = {}
        # Sources and ids of the last events, in order. load() forgets them: what was judged and not
        # committed is judged again.
        self._seen: dict[tuple[str, str], None] = {}

    def load(self, states: Iterable[tuple[str, str, State]]) -> None:
        """See :class:`Judge`."""
        self._states = {(rule, subject): state for rule, subject, state in states}
        self._seen.clear()

    def remember(self, records: Sequence[Record]) -> None:
        """See :class:`Judge`."""
        for record in records:
            self._is_new(_opened(record)[1])

    def _is_new(self, headers: Mapping[str, str]) -> bool:
        id_ = headers.get("ce_id")
        if id_ is None:
            return True
        one = headers.get("ce_source", ""), id_
        if one in self._seen:
            return False
        self._seen[one] = None
        if len(self._seen) > _EVENTS:
            del self._seen[next(iter(self._seen))]
        return True

    def judge(self, records: Sequence[Record], late: Sequence[bool]) -> Changes:
        """See :class:`Judge`."""
        events = []
        for record, is_late in zip(records, late, strict=True):
            value, headers = _opened(record)
            kind = headers.get("ce_type", "")
            event = read_event(value, kind)
            if event is not None and self._is_new(headers):
                at = record.timestamp
                events.append(RolloutEvent(kind, event, at, record.timestamp, is_late))
        rules = [rule for rule in self._rules() if isinstance(rule, RolloutRule)]
        return judge_rollouts(events, rules, self._states)

    def idle(self) -> Changes:
        """Nothing changes without an event."""
        return Changes()

    def apply(self, changes: Changes) -> None:
        """See :class:`Judge`."""
        for key, state in changes.states.items():
            if state is None:
                self._states.pop(key, None)
            else:
                self._states[key] = state

    def write(self, connection: Connection) -> None:
        """Nothing more is written."""
        del connection


def _result(record: Record, now: float) -> ResultView | None:
    value, headers = _opened(record)
    return read_result(value, headers.get("ce_type", RESULT_TYPE), now=now)


def _opened(record: Record) -> tuple[bytes, Mapping[str, str]]:
    """Return a message's value and headers as in binary mode; of a damaged envelope, nothing."""
    try:
        return unwrap(record.value, record.headers)
    except ValueError:
        return b"", {}
