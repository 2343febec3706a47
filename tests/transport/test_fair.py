"""Each connection has its turn, whatever the others send; time is counted by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from monitor.transport.fair import SLICE_BYTES, Budget, FairReading, Turns


class Clock:
    """s of work."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Pipe:
    """A transport that notes whether it is read."""

    reading = True
    aborted = False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.aborted

    def get_extra_info(self, name: str) -> tuple[str, int]:
        assert name == "peername"
        return ("192.0.2.1", 1)

    def abort(self) -> None:
        self.aborted = True


class Parser(FairReading):
    """Each slice costs some work."""

    # The time that passes meanwhile depends on the machine.
    share = 0.0

    def __init__(self, clock: Clock, slice_s: float) -> None:
        super().__init__()
        self.slice_s = slice_s
        self.parsed = b""
        self.slices = 0
        self.over = False
        self._clock = clock
        self.pipe = Pipe()
        transport: Any = self.pipe
        self.connection_made(transport)

    @property
    def peer(self) -> str:
        return "somebody"

    def step(self) -> None:
        data = self.next_slice()
        assert 0 < len(data) <= SLICE_BYTES
        self.slices += 1
        self._clock.now += self.slice_s
        if data.startswith(b"defect"):
            raise ValueError("a defect")
        self.parsed += data

    def over_budget(self) -> None:
        self.over = True


@pytest.fixture
async def clock() -> Clock:
    found = Clock()
    Turns.of(asyncio.get_running_loop()).clock = found
    return found


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_cheap_is_parsed_at_once_and_reading_goes_on(clock: Clock) -> None:
    parser, data = Parser(clock, 0.00001), bytes(range(256)) * 40
    parser.feed(data)
    assert parser.parsed == data
    assert parser.pipe.reading


async def test_what_is_costly_is_parsed_over_several_turns_and_nothing_is_read_meanwhile(
    clock: Clock,
) -> None:
    parser, data = Parser(clock, 0.001), bytes(range(256)) * 40
    parser.feed(data)
    assert parser.slices == 1
    assert not parser.pipe.reading
    await turns(1)
    assert parser.slices <= 4
    await turns(20)
    assert parser.parsed == data
    assert parser.pipe.reading


async def test_a_connection_that_waits_holds_at_most_one_read_of_16_kib() -> None:
    parsers: list[Parser] = []

    class Waiting(Parser):
        def __init__(self) -> None:
            super().__init__(Clock(), 0.0)
            parsers.append(self)

        def step(self) -> None:
            super().step()
            self.hold(True)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Waiting, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(bytes(1024 * 1024))
    while not (parsers and parsers[0].slices):
        await asyncio.sleep(0)
    await turns(50)
    assert parsers[0].slices == 1
    assert 0 < len(parsers[0]._input) <= 16 * 1024
    writer.close()
    parsers[0].transport.abort()
    server.close()
    await server.wait_closed()


async def test_sixteen_that_flood_use_no_more_of_a_turn_than_one(clock: Clock) -> None:
    parsers = [Parser(clock, 0.001) for _ in range(16)]
    for parser in parsers:
        parser.feed(bytes(16 * 1024))
    work = [sum(parser.slices for parser in parsers)]
    for _ in range(8):
        await turns(1)
        work.append(sum(parser.slices for parser in parsers))
    # 2 ms of 1 ms each, in every turn; and everyone had one before anyone had two.
    assert all(after - before <= 2 for before, after in itertools.pairwise(work))
    assert max(parser.slices for parser in parsers) - min(p.slices for p in parsers) <= 1


async def test_an_honest_peer_waits_for_one_slice_of_each_other_at_most(clock: Clock) -> None:
    flood = [Parser(clock, 0.001) for _ in range(16)]
    for parser in flood:
        parser.feed(bytes(16 * 1024))
    honest = Parser(clock, 0.00001)
    honest.feed(b"hello")
    before = sum(parser.slices for parser in flood)
    while not honest.parsed:
        await turns(1)
    assert sum(parser.slices for parser in flood) - before <= 16 + 2


async def test_an_honest_peer_does_not_wait_for_those_of_its_host_that_flood(clock: Clock) -> None:
    flood = [Parser(clock, 0.001) for _ in range(16)]
    while not all(parser.is_heavy for parser in flood):
        for parser in flood:
            parser.feed(bytes(1024))
        await turns(10)
    for parser in flood:
        parser.feed(bytes(16 * 1024))
    honest = Parser(clock, 0.00001)
    honest.feed(b"hello")
    before = sum(parser.slices for parser in flood)
    while not honest.parsed:
        await turns(1)
    assert sum(parser.slices for parser in flood) - before <= 2


async def test_the_connections_of_one_host_wait_for_each_other_and_others_do_not(
    clock: Clock,
) -> None:
    flood = [Parser(clock, 0.001) for _ in range(1000)]
    for parser in flood:
        parser.feed(b"x")
    honest = Parser(clock, 0.00001)
    honest.belongs_to("192.0.2.2")
    honest.feed(b"hello")
    await turns(2)
    assert honest.parsed
    assert not all(parser.parsed for parser in flood)
    await turns(1000)
    assert all(parser.parsed for parser in flood)


async def test_a_connection_that_stays_over_its_share_is_ended(clock: Clock) -> None:
    parser = Parser(clock, 0.03)
    fed = 0
    while not parser.over:
        fed += 1
        assert fed < 1000
        parser.feed(b"x")
        await turns(2)
    assert parser.slices * 0.03 > FairReading.burst_s


async def test_a_held_connection_parses_nothing_until_it_is_released(clock: Clock) -> None:
    parser = Parser(clock, 0.001)
    parser.hold(True)
    parser.feed(b"x" * 3000)
    await turns(5)
    assert (parser.slices, parser.pipe.reading) == (0, False)
    parser.hold(False)
    await turns(5)
    assert (parser.parsed, parser.pipe.reading) == (b"x" * 3000, True)


async def test_what_nobody_wants_is_forgotten_a_piece_a_turn(clock: Clock) -> None:
    parser = Parser(clock, 1.0)
    reading = []

    def note() -> None:
        reading.append(parser.pipe.reading)

    parser.hold(True)
    parser.feed(b"x" * 5000)
    parser.discard()
    note()
    for number in range(1, 4):
        parser.get_buffer(-1)
        parser.buffer_updated(16384)
        note()
        assert parser.forgotten_bytes == number * 16384
        await turns(2)
        note()
    parser.hold(True)
    note()
    assert reading == [True, False, True, False, True, False, True, True]
    assert parser.parsed == b""
    assert not parser.has_work


async def test_a_defect_ends_one_connection_and_the_others_go_on(clock: Clock) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    busy, broken, other = (Parser(clock, 0.01) for _ in range(3))
    busy.feed(b"x" * 3000)
    broken.feed(b"defect")
    other.feed(b"y")
    await turns(10)
    assert broken.pipe.aborted
    assert not other.pipe.aborted
    assert other.parsed == b"y"
    assert [str(each["exception"]) for each in reported] == ["a defect"]


async def test_requests_begin_a_few_a_turn_in_their_order() -> None:
    all_turns = Turns.of(asyncio.get_running_loop())
    begun: list[int] = []

    async def request(number: int) -> None:
        await all_turns.begin_request("")
        begun.append(number)

    tasks = [asyncio.create_task(request(number)) for number in range(100)]
    tasks[50].cancel()
    seen = 0
    while not all(task.done() for task in tasks):
        await turns(1)
        # Those that may begin at once, and those that waited, of two turns.
        assert len(begun) - seen <= 16
        seen = len(begun)
    assert begun == [number for number in range(100) if number != 50]


async def test_requests_of_one_host_wait_for_each_other_and_others_do_not() -> None:
    all_turns = Turns.of(asyncio.get_running_loop())
    flood = [asyncio.create_task(all_turns.begin_request("192.0.2.1")) for _ in range(1000)]
    await turns(2)
    honest = asyncio.create_task(all_turns.begin_request("192.0.2.2"))
    await turns(4)
    assert honest.done()
    assert not all(task.done() for task in flood)
    for task in flood:
        await task


def budgets() -> Iterator[tuple[float, bool]]:
    budget = Budget()
    for second in range(100):
        yield second, budget.spend(0.05, second, burst_s=0.5, share=0.05)


def test_a_share_of_the_time_is_never_too_much() -> None:
    assert all(within for _, within in budgets())


async def test_ends_of_connections_take_a_part_of_each_turn_and_may_come_in_pieces(
    clock: Clock,
) -> None:
    turns = Turns.of(asyncio.get_running_loop())
    defects: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
    ended: list[int] = []
    pieces = [3] * 50

    def end(number: int) -> bool:
        clock.now += 0.0005
        assert number != 5
        pieces[number] -= 1
        if not pieces[number]:
            ended.append(number)
        return bool(pieces[number])

    for number in range(50):
        turns.end(partial(end, number))
    assert clock.now == pytest.approx(0.002)
    while len(ended) < 49:
        before = clock.now
        await asyncio.sleep(0)
        assert clock.now <= before + 0.0025 + 1e-9
    assert ended == sorted(ended)
    assert len(defects) == 1
