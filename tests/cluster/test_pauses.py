"""Whatever the server does, no loop runs without pauses; pure: the waits are counted, not made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from monitor.cluster.api import Api, ApiError, Reason
from monitor.cluster.objects import Page, WatchEvent, read_page
from monitor.cluster.watch import Scope, Timing, Watch

TIMING = Timing()


class Waits(threading.Event):
    """An event whose waits return at once; it is set after ``most`` of them."""

    def __init__(self, most: int = 40) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.most = most

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        if len(self.waits) >= self.most:
            self.set()
        return self.is_set()


class Response:
    """A watch's answer, in chunks."""

    chunked = True

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    def stream(self, size: int, *, decode_content: bool) -> Iterator[bytes]:
        yield from self.chunks


class ScriptedApi(Api):
    """Lists nothing, and answers watches as told."""

    def __init__(self, watch: Callable[[], Response], page: Callable[[], Page]) -> None:
        super().__init__(None)
        self.asked = 0
        self._watch = watch
        self._page = page

    def pages(self, path: str, *, selector: str = "") -> Iterator[Page]:
        self.asked += 1
        yield self._page()

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str], *, read_s: float) -> Iterator[Any]:
        self.asked += 1
        yield self._watch()


class Ignore:
    def begin_list(self) -> None: ...
    def take_page(self, items: Sequence[msgspec.Raw]) -> None: ...
    def end_list(self) -> None: ...
    def take_events(self, events: Sequence[WatchEvent]) -> None: ...


EMPTY = read_page(b'{"metadata": {"resourceVersion": "5"}}')
EVENT = b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "6", "uid": "u"}}}\n'
GONE = b'{"type": "ERROR", "object": {"code": 410, "message": "too old"}}\n'
BROKEN = b'{"type": "ERROR", "object": {"code": 500, "message": "no leader"}}\n'


def failing(reason: Reason) -> Callable[[], Any]:
    def fail() -> Any:
        raise ApiError(reason, "as asked")

    return fail


def watch_of(
    watch: Callable[[], Response], page: Callable[[], Page] = lambda: EMPTY, most: int = 40
) -> tuple[Watch, Waits, ScriptedApi]:
    stop = Waits(most)
    api = ScriptedApi(watch, page)
    found = Watch(api, Scope("Pod", ""), Ignore(), stop=stop, timing=TIMING)
    found.run()
    return found, stop, api


def watched(
    watch: Callable[[], Response], page: Callable[[], Page] = lambda: EMPTY, most: int = 40
) -> tuple[Waits, ScriptedApi]:
    _, stop, api = watch_of(watch, page, most)
    return stop, api


@pytest.mark.parametrize(
    "watch",
    [
        Response,
        lambda: Response(EVENT),
        lambda: Response(EVENT[:20]),
        lambda: Response(GONE),
        lambda: Response(EVENT, GONE),
        lambda: Response(BROKEN),
        lambda: Response(b"}\n"),
        *[failing(reason) for reason in Reason],
    ],
)
def test_every_end_is_followed_by_a_pause(
    watch: Callable[[], Response],
) -> None:
    stop, api = watched(watch)
    # A round is a list and a watch at most.
    assert api.asked <= 2 * len(stop.waits)
    assert min(stop.waits) >= TIMING.pause_s / 2


@pytest.mark.parametrize("reason", [r for r in Reason if r is not Reason.EXPIRED])
def test_a_list_that_fails_is_followed_by_a_pause(reason: Reason) -> None:
    stop, api = watched(Response, failing(reason))
    assert api.asked == len(stop.waits)
    assert min(stop.waits) >= TIMING.pause_s / 2


def test_pauses_double_up_to_the_longest_and_start_again_after_an_event() -> None:
    stop, _ = watched(failing(Reason.UNREACHABLE), most=12)
    for number, wait in enumerate(stop.waits):
        pause = min(TIMING.pause_s * 2**number, TIMING.longest_pause_s)
        assert pause / 2 <= wait <= pause
    answers: list[Callable[[], Response]] = [lambda: Response(EVENT)]
    answers += [failing(Reason.UNREACHABLE)] * 5

    def answer() -> Response:
        return answers.pop()()

    stop, _ = watched(answer, most=6)
    assert stop.waits[4] > 5 * stop.waits[5]


def test_what_time_does_not_heal_is_asked_for_rarely() -> None:
    for reason in (Reason.FORBIDDEN, Reason.MISSING, Reason.REJECTED):
        stop, _ = watched(failing(reason), most=5)
        assert min(stop.waits) >= TIMING.lasting_s / 2


def test_a_server_that_ends_each_watch_at_once_lets_nothing_be_watched() -> None:
    found, _, _ = watch_of(Response)
    assert found.problem == "the server ends each watch at once"
    found, _, _ = watch_of(lambda: Response(EVENT))
    assert found.problem is None


def test_the_servers_wish_is_a_lower_bound() -> None:
    def throttled() -> Response:
        raise ApiError(Reason.THROTTLED, "HTTP 429", retry_after_s=77.0)

    stop, _ = watched(throttled, most=5)
    assert all(wait >= 77.0 for wait in stop.waits)


def test_the_limits_of_a_watch_leave_only_the_dead_silent() -> None:
    assert TIMING.watch_s < TIMING.silence_s
