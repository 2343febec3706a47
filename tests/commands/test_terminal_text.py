from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
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
