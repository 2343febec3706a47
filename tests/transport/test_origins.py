"""Origins: one normal form for the config and for requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.daemon.config import load
from monitor.errors import ConfigError
from monitor.transport.origins import is_allowed, normal_origin


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://recodex.example", "https://recodex.example"),
        ("HTTPS://ReCodEx.Example:443", "https://recodex.example"),
        ("http://recodex.example:80", "http://recodex.example"),
        ("https://recodex.example", "https://recodex.example:443"),
        ("http://recodex.example:8080", "http://recodex.example:8080"),
        ("https://[2001:DB8::1]:443", "https://[2001:db8::1]"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("https://ΒΌΛΟΣ:443", "https://xn--nxasmq6b"),
        ("null", "null"),
        ("file://", "file://"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
@pytest.mark.parametrize("section", ["relay", "api"])
def test_an_origin_matches_in_its_normal_form(
    tmp_path: Path, section: str, written: str, sent: str
) -> None:
    file = tmp_path / "config.yml"
    file.write_text(f"{section}: {{origins: ['{written}']}}")
    config = load(str(file)).config
    found = config.relay if section == "relay" else config.api
    assert found is not None
    assert is_allowed(sent, found.origins)
    assert not is_allowed("https://other.example", found.origins)
    # Another host, which the rules for names of 2003 make of straße.
    assert not is_allowed("https://strasse.example", found.origins)
    assert normal_origin(normal_origin(written)) == normal_origin(written)


@pytest.mark.parametrize(
    "written",
    [
        *("*", "https://*.example.org", "https://example.org/", "https://example.org/page", ""),
        *("example.org", "example.org:443", "//example.org", "https://", "https://u@example.org"),
        *("https://example.org:99999", "https://example.org:x", "https://a b", "wss://a.example"),
        *("https://example.org?x", "https://exa\u2028mple.org", "https://[::1", "1234"),
        # No page has these forms of an address or of a name.
        *("https://127.1", "https://0x7f.1", "https://256.0.0.1", "https://01.2.3.4"),
        *("https://[fe80::1%1]", "https://a.example:0", f"https://{'a' * 64}.example"),
    ],
)
@pytest.mark.parametrize("section", ["relay", "api"])
def test_an_origin_that_no_browser_sends_is_bad_config(
    tmp_path: Path, section: str, written: str
) -> None:
    file = tmp_path / "config.yml"
    file.write_text(f"\n{section}:\n  origins:\n  - {written!r}\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    assert str(caught.value).startswith(f"{file}:4: {section}.origins[0]: ")
    assert not is_allowed(written, ["https://example.org"])
