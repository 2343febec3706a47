"""The table of close codes: one table, wherever it stands."""

from __future__ import annotations

import json
import re

from monitor.relay.codes import CLOSE_CODES, CloseCode, ComeBack
from tests.servers.daemon import ROOT


def row(code: CloseCode) -> str:
    low, high = code.delay_s
    after = "" if code.come_back is ComeBack.NEVER else f"{low:g} to {high:g}"
    return f"| {code.code} | {code.meaning} | {code.come_back.value} | {after} |"


def test_the_documentation_shows_the_table() -> None:
    page = (ROOT / "docs" / "reference" / "close-codes.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if re.match(r"\| \d", line)]
    assert shown == [row(code) for code in CLOSE_CODES.values()]


def test_the_pages_client_goes_by_the_table() -> None:
    script = (ROOT / "monitor" / "web" / "static" / "relay-client.js").read_text(encoding="utf-8")
    told = {
        int(code): None if delays == "NEVER" else tuple(json.loads(delays))
        for code, delays in re.findall(r"^  \[(\d{4}), (NEVER|\[.*?\])\],$", script, re.MULTILINE)
    }
    assert told == {
        code.code: None if code.come_back is ComeBack.NEVER else code.delay_s
        for code in CLOSE_CODES.values()
    }
