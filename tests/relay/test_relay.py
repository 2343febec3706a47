"""The wire contract over real sockets: a daemon, a ZeroMQ broker, WebSocket clients."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import zmq
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.ports import free_port
from tests.relay.broker import Broker
from tests.relay.conftest import Relay, StartRelay, everything
from tests.servers.daemon import StartDaemon
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test


def expected(frames: list[str]) -> str:
    keys = ["command", "task_id", "task_state"]
    return json.dumps(dict(zip(keys, frames[1:], strict=False)), sort_keys=True)


def test_a_recorded_job_arrives_to_the_byte_with_its_timing(relay: Relay) -> None:
    recording = [
        json.loads(line)
        for line in (Path(__file__).parent / "broker.jsonl").read_text().splitlines()
    ]
    channels = sorted({entry["frames"][0] for entry in recording})
    clients = {channel: relay.client(channel, path=f"/ws/{channel}") for channel in channels}
    for channel in channels:
        relay.wait_subscribed(channel)
    began = time.monotonic()
    for entry in recording:
        time.sleep(max(0, entry["t"] - (time.monotonic() - began)))  # the recording's own pace
        relay.broker.send(*entry["frames"])
    for channel, client in clients.items():
        said = [expected(e["frames"]) for e in recording if e["frames"][0] == channel]
        if '{"command": "FINISHED"}' in said:
            assert everything(client) == (said, 1000)
        else:
            assert [client.recv(timeout=60) for _ in said] == said


def test_history_then_live_with_nothing_lost_or_twice(relay: Relay) -> None:
    for number in range(500):
        relay.broker.task("c", number)
    early = relay.client("c")
    first = [early.recv(timeout=60) for _ in range(200)]
    late = relay.client("c")
    for number in range(500, 1000):
        relay.broker.task("c", number)
    relay.broker.send("c", "FINISHED")
    told = [expected(["c", "TASK", f"t{number}", "COMPLETED"]) for number in range(1000)] + [
        '{"command": "FINISHED"}'
    ]
    rest, code = everything(early)
    assert (first + rest, code) == (told, 1000)
    assert everything(late) == (told, 1000)


def test_late_subscribers_get_the_history_and_1000(relay: Relay) -> None:
    relay.broker.send("done", "STARTED")
    relay.broker.send("done", "FINISHED")
    relay.broker.send("done", "FINISHED")
    for _ in range(2):
        assert everything(relay.client("done")) == (
            ['{"command": "STARTED"}', '{"command": "FINISHED"}'],
            1000,
        )


def test_a_channel_used_again_after_its_end_starts_anew(relay: Relay) -> None:
    relay.broker.send("c", "STARTED")
    relay.broker.send("c", "FINISHED")
    assert len(everything(relay.client("c"))[0]) == 2
    relay.broker.send("c", "DOWNLOADED")
    client = relay.client("c")
    assert client.recv(timeout=60) == '{"command": "DOWNLOADED"}'
    relay.broker.send("c", "FINISHED")
    assert everything(client) == (['{"command": "FINISHED"}'], 1000)


def test_channels_left_open_by_failed_or_silence_end(start_relay: StartRelay) -> None:
    relay = start_relay(end_after_failed=0.5, keep_idle=1.5)
    failed, idle = relay.client("failed"), relay.client("idle")
    relay.broker.send("failed", "FAILED")
    relay.broker.send("idle", "STARTED")
    assert everything(failed) == (['{"command": "FAILED"}'], 1000)
    assert everything(idle) == (['{"command": "STARTED"}'], 1000)
    # The failed one is kept for late subscribers.
    assert everything(relay.client("failed")) == (['{"command": "FAILED"}'], 1000)


def test_further_frames_and_other_commands_are_as_the_old_monitor_sent_them(relay: Relay) -> None:
    client = relay.client("c")
    relay.broker.send("c", "TASK", "t", "COMPLETED", "more", "and more", "1", "2", "3")
    relay.broker.send("c", "FAILED", "a reason")
    relay.broker.send("c", "TASK", "only an id")
    relay.broker.send("c", "ěšč", "\u2028", '\\"')
    assert [client.recv(timeout=60) for _ in range(4)] == [
        '{"command": "TASK", "task_id": "t", "task_state": "COMPLETED"}',
        '{"command": "FAILED", "task_id": "a reason"}',
        '{"command": "TASK", "task_id": "only an id"}',
        expected(["c", "ěšč", "\u2028", '\\"']),
    ]


def test_the_router_has_its_identity(relay: Relay) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.ROUTER_MANDATORY, 1)
        peer.connect(f"tcp://127.0.0.1:{relay.zeromq_port}")

        def reached() -> bool:
            try:
                peer.send_multipart([b"recodex-monitor", b"by-name", b"STARTED"], zmq.NOBLOCK)
            except zmq.ZMQError:
                return False
            return True

        wait_for(reached, "the relay under its identity")
        assert relay.client("by-name").recv(timeout=60) == '{"command": "STARTED"}'


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([b""], id="one empty frame"),
        pytest.param([b"channel"], id="one frame"),
        pytest.param([b"", b"TASK"], id="empty channel"),
        pytest.param([b"c", b""], id="empty command"),
        pytest.param([b"\xff\xfe", b"TASK"], id="not UTF-8"),
        pytest.param([b"0", b"exit"], id="remote exit, not allowed"),
        pytest.param([b"c", *[b"x"] * 1000], id="a thousand frames"),
    ],
)
def test_rubbish_from_a_broker_disturbs_nobody(relay: Relay, frames: list[bytes]) -> None:
    client = relay.client("good")
    relay.wait_subscribed("good")
    for _ in range(100):
        relay.broker.raw(frames)
    relay.broker.send("good", "FINISHED")
    assert everything(client) == (['{"command": "FINISHED"}'], 1000)
    warnings = [line for line in relay.daemon.log.splitlines() if "[WARNING]" in line]
    assert len(warnings) <= 7, "a flood of rubbish is limited in the log"


def test_a_huge_frame_costs_its_sender_the_connection_and_nobody_else(relay: Relay) -> None:
    client = relay.client("good")
    huge = relay.another_broker()
    huge.raw([b"good", b"TASK", b"x" * 1_000_000, b"COMPLETED"])
    relay.daemon.wait_log("a ZeroMQ peer disconnected")
    relay.broker.send("good", "FINISHED")
    assert everything(client) == (['{"command": "FINISHED"}'], 1000)


def test_remote_exit_only_where_allowed(start_relay: StartRelay) -> None:
    relay = start_relay(allow_remote_exit=True)
    client = relay.client("c")
    relay.broker.send("0", "exit")
    assert everything(client) == ([], 1001)
    assert relay.daemon.wait() == 0


@pytest.mark.parametrize(("name", "code"), [(b"channel", 1003), ("", 1008), ("x" * 10_000, 1009)])
def test_what_is_no_channels_name_is_refused(relay: Relay, name: str | bytes, code: int) -> None:
    client = relay.client(None)
    client.send(name)
    assert everything(client) == ([], code)


def test_who_names_no_channel_is_sent_away(start_relay: StartRelay) -> None:
    relay = start_relay(subscribe_timeout=0.3)
    client = relay.client(None)
    assert everything(client) == ([], 1008)


def test_what_a_subscriber_says_later_means_nothing(relay: Relay) -> None:
    client = relay.client("c")
    for _ in range(1000):
        client.send("noise" * 100)
    relay.broker.send("c", "FINISHED")
    assert everything(client) == (['{"command": "FINISHED"}'], 1000)


def test_origins(start_relay: StartRelay) -> None:
    relay = start_relay(origins=["https://recodex.example"])
    relay.broker.send("c", "FINISHED")
    for origin in ("https://recodex.example", None):
        assert everything(relay.client("c", origin=origin))[1] == 1000
    with pytest.raises(InvalidStatus) as refused:
        relay.client("c", origin="https://elsewhere.example")
    assert refused.value.response.status_code == 403


def test_more_clients_than_allowed_are_told_so(start_relay: StartRelay) -> None:
    relay = start_relay(max_clients=2)
    clients = [relay.client("c"), relay.client("c")]
    with pytest.raises(InvalidStatus) as refused:
        relay.client("c")
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"]
    relay.broker.send("c", "FINISHED")
    assert [everything(client)[1] for client in clients] == [1000, 1000]
    # Places that are free again are given again.
    assert everything(relay.client("c"))[1] == 1000


def test_ipv6_and_host_names_work(start_daemon: StartDaemon, tmp_path: Path) -> None:
    for host in ("::1", "localhost"):
        websocket_port, zeromq_port = free_port(), free_port()
        daemon = start_daemon(
            {"websocket_uri": [host, websocket_port], "zeromq_uri": [host, zeromq_port]},
            directory=tmp_path / host.strip(":"),
        ).wait_ready()
        shown = f"[{host}]" if ":" in host else host
        broker = Broker(f"tcp://{shown}:{zeromq_port}")
        broker.send("c", "FINISHED")
        with connect(f"ws://{shown}:{websocket_port}/") as client:
            client.send("c")
            assert everything(client) == (['{"command": "FINISHED"}'], 1000)
        broker.close()
        assert daemon.stop() == 0
