"""The recovering protocol over real sockets."""

from __future__ import annotations

import json
import time

import pytest
from websockets.exceptions import ConnectionClosed

from tests.relay.conftest import Relay, StartRelay, everything
from tests.relay.recovering import RecoveringClient, commands
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test


def test_messages_carry_channel_epoch_number_and_time(relay: Relay) -> None:
    client = RecoveringClient(relay)
    answer = client.subscribe("job")
    assert "recovered" not in answer
    assert answer["seq"] == 0
    began = time.time()
    relay.broker.send("job", "STARTED")
    relay.broker.send("job", "TASK", "ěš\u2028", "COMPLETED")
    relay.broker.send("job", "FINISHED")
    got = client.until_end()
    ended = time.time()
    assert all(began - 1 < message.pop("time") < ended + 1 for message in got[:-1])
    shared = {"type": "message", "channel": "job", "epoch": answer["epoch"]}
    assert got == [
        {**shared, "seq": 1, "data": {"command": "STARTED"}},
        {
            **shared,
            "seq": 2,
            "data": {"command": "TASK", "task_id": "ěš\u2028", "task_state": "COMPLETED"},
        },
        {**shared, "seq": 3, "data": {"command": "FINISHED"}},
        {"type": "finished", "channel": "job", "epoch": answer["epoch"], "seq": 3},
    ]


def test_one_connection_reads_many_channels_and_leaves_them(relay: Relay) -> None:
    client = RecoveringClient(relay)
    for number in range(50):
        client.subscribe(f"job{number}")
    client.send(type="leave", channel="job7")
    # An answer to a later request shows that the leave was taken.
    client.subscribe("last")
    for number in range(50):
        relay.broker.send(f"job{number}", "FINISHED")
    relay.broker.send("last", "FINISHED")
    ended = set()
    while "last" not in ended:
        message = client.receive()
        if message["type"] == "finished":
            ended.add(message["channel"])
    assert ended == {"last", *(f"job{n}" for n in range(50) if n != 7)}
    # The connection stays, and takes more.
    assert client.subscribe("job7")["seq"] == 0
    assert commands(client.until_end()) == ["FINISHED"]


def test_after_resumes_exactly_there(relay: Relay) -> None:
    for number in range(100):
        relay.broker.task("job", number)
    relay.wait_received(100)
    first = RecoveringClient(relay)
    answer = first.subscribe("job")
    got = [first.receive() for _ in range(60)]
    first.connection.close_timeout = 0.1
    first.connection.close()
    relay.broker.send("job", "FINISHED")
    again = RecoveringClient(relay)
    resumed = again.subscribe("job", (answer["epoch"], got[-1]["seq"]))
    assert (resumed["recovered"], resumed["seq"]) == (True, 60)
    rest = again.until_end()
    assert commands(got + rest) == [*(f"t{n}" for n in range(100)), "FINISHED"]


def test_what_cannot_be_recovered_is_said(start_relay: StartRelay) -> None:
    relay = start_relay(max_messages=10)
    for number in range(30):
        relay.broker.task("job", number)
    relay.wait_received(30)
    client = RecoveringClient(relay)
    epoch = client.subscribe("job")["epoch"]
    assert commands([client.receive() for _ in range(10)]) == [f"t{n}" for n in range(20, 30)]
    for after in ((epoch, 19), ("another", 25), (epoch, 31)):
        answer = client.subscribe("job", after)
        assert (answer["recovered"], answer["seq"], answer["epoch"]) == (False, 20, epoch)
        assert [client.receive()["seq"] for _ in range(10)] == list(range(21, 31))
    assert client.subscribe("job", (epoch, 20))["recovered"] is True
    relay.broker.send("job", "FINISHED")
    assert commands(client.until_end())[-1] == "FINISHED"


def test_a_channel_used_again_has_another_epoch(relay: Relay) -> None:
    client = RecoveringClient(relay)
    relay.broker.send("job", "FINISHED")
    relay.wait_received(1)
    epoch = client.subscribe("job")["epoch"]
    client.until_end()
    relay.broker.send("job", "STARTED")
    relay.wait_received(2)
    answer = client.subscribe("job", (epoch, 1))
    assert answer["recovered"] is False
    assert answer["epoch"] != epoch
    assert client.receive()["data"] == {"command": "STARTED"}


def test_who_waits_for_a_job_that_begins_meanwhile_has_missed_nothing(relay: Relay) -> None:
    client = RecoveringClient(relay)
    epoch = client.subscribe("job")["epoch"]
    client.connection.close()
    relay.daemon.wait_log("a client left job")
    relay.broker.send("job", "STARTED")
    relay.wait_received(1)
    again = RecoveringClient(relay)
    assert again.subscribe("job", (epoch, 0))["recovered"] is True
    assert again.receive()["data"] == {"command": "STARTED"}


def test_channels_that_fail_or_fall_silent_end_as_failed(start_relay: StartRelay) -> None:
    relay = start_relay(end_after_failed=0.5, keep_idle=1.5)
    client = RecoveringClient(relay)
    client.subscribe("failed")
    client.subscribe("idle")
    relay.broker.send("failed", "FAILED")
    relay.broker.send("idle", "STARTED")
    got = client.until_end() + client.until_end()
    ends = {message["channel"]: message for message in got if message["type"] == "failed"}
    assert {name: end["reason"] for name, end in ends.items()} == {
        "failed": "failed",
        "idle": "idle",
    }


def test_the_feed_is_told_when_it_is_lost_and_back(relay: Relay) -> None:
    wait_for(lambda: relay.daemon.log.count("peer connected"), "the broker")
    client = RecoveringClient(relay)
    assert (client.feed["state"], client.feed["brokers"]) == ("up", 1)
    relay.broker.send("job", "STARTED")
    client.subscribe("job")
    assert client.receive()["seq"] == 1
    second = relay.another_broker()
    assert [client.receive()[key] for key in ("state",)] == ["up"]
    second.close()
    told = client.receive()
    assert (told["type"], told["state"], told["brokers"]) == ("feed", "lost", 1)
    relay.broker.close()
    assert client.receive()["state"] == "down"
    # A later subscriber learns where the gap is.
    late = RecoveringClient(relay)
    assert late.feed["state"] == "down"
    late.subscribe("job")
    gap = late.receive()
    assert (gap["type"], gap["state"], gap["channel"], gap["seq"]) == ("feed", "gap", "job", 1)
    assert gap["until"] is None
    relay.another_broker().send("job", "FINISHED")
    assert client.receive()["state"] == "up"
    assert client.until_end()[-1]["type"] == "finished"


@pytest.mark.parametrize(
    "rubbish",
    [
        "job",
        "[]",
        "{}",
        '{"type": "subscribe"}',
        '{"type": "subscribe", "channel": ""}',
        '{"type": "subscribe", "channel": 5}',
        '{"type": "subscribe", "channel": "c", "after": {"epoch": 1, "seq": 1}}',
        '{"type": "subscribe", "channel": "c", "after": {"epoch": "e", "seq": -1}}',
        '{"type": "subscribe", "channel": "\\ud800"}',
        '{"type": "subscribe", "channel": "' + "ř" * 2048 + '."}',
        "[" * 8000,
    ],
)
def test_what_is_no_request_is_answered_with_an_error(relay: Relay, rubbish: str) -> None:
    client = RecoveringClient(relay)
    client.connection.send(rubbish)
    answer = client.receive()
    assert (answer["type"], answer["code"]) == ("error", "bad-request")
    # Nothing else changed.
    client.subscribe("job")
    relay.broker.send("job", "FINISHED")
    assert commands(client.until_end()) == ["FINISHED"]


def test_subscriptions_of_a_connection_are_bounded(relay: Relay) -> None:
    client = RecoveringClient(relay)
    client.subscribe("x" * 4096)
    for number in range(999):
        client.subscribe(f"job{number}")
    client.send(type="subscribe", channel="one more")
    answer = client.receive()
    assert (answer["code"], answer["channel"]) == ("too-many-subscriptions", "one more")


def test_requests_in_pieces_and_bytes(relay: Relay) -> None:
    client = RecoveringClient(relay)
    text = json.dumps({"type": "subscribe", "channel": "job"})
    client.connection.send([text[:10], text[10:20], text[20:]])
    assert client.receive()["type"] == "subscribed"
    client.connection.send(b"bytes")
    with pytest.raises(ConnectionClosed):
        client.receive()
    assert client.connection.close_code == 1003


def test_a_client_that_asks_for_nothing_is_sent_away(start_relay: StartRelay) -> None:
    relay = start_relay(subscribe_timeout=2)
    asking = RecoveringClient(relay)
    asking.subscribe("job")
    silent = RecoveringClient(relay)
    with pytest.raises(ConnectionClosed):
        silent.receive()
    assert silent.connection.close_code == 1008
    relay.broker.send("job", "FINISHED")
    assert commands(asking.until_end()) == ["FINISHED"]


def test_a_long_history_comes_whole_and_in_order_beside_live_messages(relay: Relay) -> None:
    for number in range(20_000):
        relay.broker.task("job", number)
    relay.wait_received(20_000)
    client = RecoveringClient(relay)
    client.subscribe("job")
    for number in range(20_000, 21_000):
        relay.broker.task("job", number)
    relay.broker.send("job", "FINISHED")
    got = client.until_end()
    assert [message["seq"] for message in got] == [*range(1, 21_002), 21_001]
    assert commands(got) == [*(f"t{n}" for n in range(21_000)), "FINISHED"]


def test_a_reader_that_is_outrun_is_told_and_goes_on(start_relay: StartRelay) -> None:
    relay = start_relay(max_messages=100)
    client = RecoveringClient(relay)
    epoch = client.subscribe("job")["epoch"]
    text = "x" * 10_000
    for number in range(3000):
        relay.broker.send("job", "TASK", f"{number} {text}", "COMPLETED")
    relay.broker.send("job", "FINISHED")
    relay.daemon.wait_log("channel job finished")
    got = client.until_end()
    expected = 1
    holes = 0
    for message in got:
        if message["type"] == "subscribed":
            assert (message["recovered"], message["epoch"]) == (False, epoch)
            assert message["seq"] >= expected
            holes += 1
            expected = message["seq"] + 1
        elif message["type"] == "message":
            assert message["seq"] == expected
            expected += 1
    assert holes
    assert got[-1]["seq"] == 3001


def test_old_clients_see_no_change_beside_new_ones(relay: Relay) -> None:
    old = relay.client("job")
    new = RecoveringClient(relay)
    new.subscribe("job")
    relay.broker.task("job", 1)
    relay.broker.send("job", "FINISHED")
    told = (
        [
            '{"command": "TASK", "task_id": "t1", "task_state": "COMPLETED"}',
            '{"command": "FINISHED"}',
        ],
        1000,
    )
    assert everything(old) == told
    # A protocol that the relay does not know is not chosen, and the old one is spoken.
    other = relay.client("job", subprotocols=["something.else"])
    assert other.subprotocol is None
    assert everything(other) == told
    assert commands(new.until_end()) == ["t1", "FINISHED"]


def test_the_drain_gives_what_is_queued_and_says_goodbye(relay: Relay) -> None:
    clients = [RecoveringClient(relay) for _ in range(20)]
    for client in clients:
        client.subscribe("job")
    relay.broker.task("job", 1)
    relay.wait_received(1)
    relay.daemon.process.terminate()
    for client in clients:
        assert client.receive()["seq"] == 1
        with pytest.raises(ConnectionClosed):
            client.receive()
        assert client.connection.close_code == 1001
    assert relay.daemon.wait() == 0
