"""``play [FILE]``: sends a recorded job to a relay like a broker, with its timing.

A recording has one line of JSON per message: ``{"t": seconds, "frames": [channel, command, ...]}``,
with the frames as latin-1 text.
"""

from __future__ import annotations

import argparse
import math
import time
from importlib import resources
from typing import Annotated, NamedTuple

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from monitor.commands.arguments import channel_name, seconds, server_url
from monitor.commands.found_config import find_config
from monitor.commands.terminal_text import terminal_text
from monitor.daemon.config import Config
from monitor.errors import MonitorError, SettingError, UnavailableError, UsageError
from monitor.files.reading import read_file
from monitor.part import counted
from monitor.settings import address_text, read_secret
from monitor.transport.curve import curve_key_in, read_curve_keys

__all__ = ["add_arguments", "run"]

_LINGER_S = 10.0
_STAY_S = 0.5
_LONGEST_PAUSE_S = 86400.0
_MAX_FILE_BYTES = 256 * 1024 * 1024


class _Record(msgspec.Struct):
    t: Annotated[float, msgspec.Meta(ge=0, le=3_200_000_000)]
    frames: list[str]


class _Entry(NamedTuple):
    t: float
    frames: list[bytes]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", nargs="?", help="a recording; without one, a small job is played")
    parser.add_argument("--channel", metavar="C", help="play only the first job, as channel C")
    parser.add_argument("--uri", metavar="TCP", help="the relay, such as tcp://127.0.0.1:7894")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="X times as fast")
    parser.add_argument(
        "--wait",
        type=seconds,
        default=10.0,
        metavar="S",
        help="give up after S seconds without a relay",
    )
    parser.add_argument(
        "--key", metavar="FILE", help="CURVE: the certificate (.key_secret) to connect with"
    )
    parser.add_argument(
        "--server-key", metavar="Z85", help="CURVE: the relay's public key, if not in -c FILE"
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="read address and key of the relay from this config"
    )


def run(args: argparse.Namespace) -> int:
    """Send the recording; raises UnavailableError if no relay responds."""
    if not (args.speed > 0 and math.isfinite(args.speed)):
        raise UsageError("--speed: expected a number above 0")
    entries = _read(args.file)
    if args.channel is not None:
        channel_name(args.channel)
        first = entries[0].frames[0]
        entries = [
            _Entry(entry.t, [args.channel.encode(), *entry.frames[1:]])
            for entry in entries
            if entry.frames[0] == first
        ]
    config = find_config(args.config, "zeromq_uri", "relay.curve").loaded.config
    if args.uri is not None:
        server_url("--uri", args.uri, ("tcp",))
    uri = args.uri or _configured_uri(config)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, int(_LINGER_S * 1000))
        _use_curve(socket, args, config)
        _connect(socket, uri, args.wait, has_key=args.key is not None)
        began = time.monotonic()
        for entry in entries:
            pause = (entry.t - entries[0].t) / args.speed - (time.monotonic() - began)
            time.sleep(min(max(0.0, pause), _LONGEST_PAUSE_S))
            if not socket.poll(int(args.wait * 1000), zmq.POLLOUT):
                raise UnavailableError(uri, "the relay accepts no more messages; gave up waiting")
            socket.send_multipart(entry.frames)
            shown = terminal_text(" ".join(frame.decode("latin-1") for frame in entry.frames))
            print(f"{entry.t - entries[0].t:8.3f} {shown}", flush=True)
        # Stay connected, so that readers get the last messages before the notice that it is gone.
        time.sleep(_STAY_S)
    print(f"sent {counted(len(entries), 'message')} to {uri}")
    return 0


def _read(file: str | None) -> list[_Entry]:
    shown = file or "the bundled recording"
    try:
        if file is None:
            text = (
                resources.files("monitor.commands").joinpath("recording.jsonl").read_text("utf-8")
            )
        else:
            text = read_file(file, max_bytes=_MAX_FILE_BYTES, own=True).decode("utf-8-sig")
    except OSError as error:
        raise MonitorError(f"cannot read {shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MonitorError(f"{shown}: not UTF-8 text") from None
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = msgspec.json.decode(line, type=_Record)
            frames = [frame.encode("latin-1") for frame in record.frames]
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise MonitorError(
                f"{shown}:{number}: not a message: expected"
                ' {"t": seconds, "frames": [channel, command, ...]}'
            ) from None
        if not frames:
            raise MonitorError(f"{shown}:{number}: a message needs a channel")
        entries.append(_Entry(record.t, frames))
    if not entries:
        raise MonitorError(f"{shown}: has no messages")
    return entries


def _configured_uri(config: Config) -> str:
    host, port = config.zeromq_uri
    # Connect to loopback if the relay listens on all addresses.
    host = {"*": "127.0.0.1", "": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"tcp://{address_text((host, port))}"


def _use_curve(socket: zmq.Socket[bytes], args: argparse.Namespace, config: Config) -> None:
    curve = config.relay.curve if config.relay is not None else None
    if args.server_key is None and args.key is None and curve is None:
        return
    try:
        server = (
            args.server_key.encode("utf-8", "replace")
            if args.server_key
            else read_curve_keys(curve).public
            if curve
            else None
        )
        if server is None:
            raise UsageError("--key needs the relay's public key: --server-key or -c FILE")
        if args.key is None:
            public, secret = zmq.curve_keypair()
        else:
            text = read_secret(args.key, path=("--key",))
            found = {name: curve_key_in(text, name) for name in ("public-key", "secret-key")}
            for name, key in found.items():
                if key is None:
                    raise UsageError(f"--key: {args.key} has no {name}")
            public, secret = (str(key).encode() for key in found.values())
    except SettingError as error:
        raise UsageError(str(error)) from None
    for name, option, given in (
        ("--server-key", zmq.CURVE_SERVERKEY, server),
        ("--key", zmq.CURVE_PUBLICKEY, public),
        ("--key", zmq.CURVE_SECRETKEY, secret),
    ):
        try:
            socket.setsockopt(option, given)
        except zmq.ZMQError:
            raise UsageError(f"{name}: not a CURVE key: expected 40 characters of Z85") from None


def _connect(socket: zmq.Socket[bytes], uri: str, wait_s: float, *, has_key: bool) -> None:
    """Wait for the handshake of the relay: a message sent before it might be lost."""
    monitor = socket.get_monitor_socket(
        zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    )
    # Only for an IPv6 address: otherwise libzmq would prefer IPv6 addresses of names.
    socket.setsockopt(zmq.IPV6, "[" in uri)
    try:
        try:
            socket.connect(uri)
        except zmq.ZMQError as error:
            raise UsageError(f"--uri: {uri} is not tcp://HOST:PORT ({error})") from None
        ends_at = time.monotonic() + wait_s
        problem = "no relay responded"
        while True:
            left_s = ends_at - time.monotonic()
            if not monitor.poll(max(0, int(left_s * 1000))):
                socket.setsockopt(zmq.LINGER, 0)
                raise UnavailableError(uri, f"{problem} within {wait_s:g} s; gave up waiting")
            match recv_monitor_message(monitor)["event"]:
                case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    return
                case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    socket.setsockopt(zmq.LINGER, 0)
                    hint = "" if has_key else "; it allows brokers by their keys: use --key FILE"
                    raise MonitorError(f"{uri}: the relay does not allow this key{hint}")
            problem = (
                "connected, but no ZeroMQ handshake succeeded (a relay with relay.curve needs"
                " --key and --server-key)"
            )
    finally:
        socket.disable_monitor()
        monitor.close(0)
