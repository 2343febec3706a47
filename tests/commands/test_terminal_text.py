from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import zmq
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from monitor.bus import create_bus
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.daemon.config import load
from monitor.main import main


@given(st.text())
def test_any_text_becomes_one_line_that_commands_nothing(text: str) -> None:
    shown = terminal_text(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert text != shown or text.isprintable()


@given(st.text())
def test_json_says_the_same_and_commands_nothing(text: str) -> None:
    shown = terminal_json(msgspec.json.encode([text.encode(errors="ignore").decode()]).decode())
    assert json.loads(shown) == [text.encode(errors="ignore").decode()]
    assert not any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in shown)


@pytest.fixture
async def config(tmp_path: Path) -> str:
    """Write a config whose bus has a message with terminal commands; return its path."""
    file = tmp_path / "config.yml"
    file.write_text(json.dumps({"bus": {"file": str(tmp_path / "spool.db")}}))
    bus = create_bus(load(str(file)).config.bus, None)
    await bus.start()
    bus.publish("t", value=b'"a\xc2\x9b2J\x1b"', key="k\n\x1b[2J", headers={})
    await bus.close()
    return str(file)


def test_a_topic_is_shown_without_what_its_publisher_would_have_a_terminal_do(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["topic", "t", "-c", config]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(r'k\n\x1b[2J "a\x9b2J\x1b"')
    assert main(["topic", "t", "--json", "-c", config]) == 0
    out = capsys.readouterr().out
    assert out.rstrip("\n").isprintable()
    assert json.loads(out)["key"] == "k\n\x1b[2J"


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A TLS server's port, and its certificate, whose name commands terminals."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil\x1b[2J\x9b31m")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "evil.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = tmp_path / "evil.key"
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, secret)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with contextlib.suppress(OSError), peer:
                        context.wrap_socket(peer, server_side=True).close()

        serving = threading.Thread(target=serve)
        serving.start()
        yield listener.getsockname()[1], file
        listener.shutdown(socket.SHUT_RDWR)
        serving.join()


def test_a_site_is_checked_without_what_its_certificate_would_have_a_terminal_do(
    impostor: tuple[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    port, certificate = impostor
    arguments = ["probe", f"https://localhost:{port}/", "--ca-file", str(certificate)]
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert "bad-certificate" in shown
    assert r"\x1b[2J" in shown
    assert all(line.isprintable() for line in shown.splitlines())
    assert main([*arguments, "--json"]) == 1
    out = capsys.readouterr().out
    assert "\x1b" in json.loads(out)["error"]
    assert out.isascii()
    assert out.rstrip("\n").isprintable()


def test_a_recording_is_played_without_what_it_would_have_a_terminal_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recording.jsonl"
    # As some editors and shells of Windows write it.
    file.write_bytes(b'\xef\xbb\xbf{"t": 0, "frames": ["c", "\\u001b[2J"]}\r\n')
    with zmq.Context() as context, context.socket(zmq.ROUTER) as relay:
        relay.linger = 0
        port = relay.bind_to_random_port("tcp://127.0.0.1")
        assert main(["play", str(file), "--uri", f"tcp://127.0.0.1:{port}"]) == 0
        assert relay.recv_multipart()[1:] == [b"c", b"\x1b[2J"]
    shown = capsys.readouterr().out
    assert r"c \x1b[2J" in shown
    assert all(line.isprintable() for line in shown.splitlines())
