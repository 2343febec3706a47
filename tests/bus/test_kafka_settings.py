"""The section ``kafka``: what the reference names works, and what works is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka.net.sasl import SASL_MECHANISMS

from monitor.bus import KafkaSettings
from monitor.errors import SettingError

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "config.md"
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
LEVELS = ("read_committed", "read_uncommitted", "serializable")


def named(key: str) -> set[str]:
    """Return the words that the reference has for a key."""
    (row,) = re.findall(rf"^\| `(?:kafka\.)?{key}` \|.*$", REFERENCE.read_text(), re.M)
    return set(re.findall(r"[\w-]+", row)) - {key}


def accepted(folder: Path, **options: Any) -> bool:
    """Return whether a section is valid that has all that any mechanism needs."""
    secret = folder / "secret"
    secret.write_text("secret")
    section = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "monitor",
        "sasl_plain_password_file": str(secret),
        "sasl_oauthbearer_token_file": str(secret),
    } | options
    try:
        msgspec.convert(section, KafkaSettings).verify()
    except (SettingError, msgspec.ValidationError):
        return False
    return True


@pytest.mark.parametrize("mechanism", [*SASL_MECHANISMS, "NONSENSE"])
def test_a_mechanism_is_in_the_reference_if_it_works(tmp_path: Path, mechanism: str) -> None:
    works = accepted(tmp_path, sasl_mechanism=mechanism)
    assert works is (mechanism in named("sasl_mechanism"))


def test_protocols_and_levels_are_those_of_the_reference(tmp_path: Path) -> None:
    for protocol in (*PROTOCOLS, "TLS"):
        works = accepted(tmp_path, security_protocol=protocol)
        assert works is (protocol in named("security_protocol"))
    for level in LEVELS:
        works = accepted(tmp_path, isolation_level=level)
        assert works is (level in named("isolation_level"))
