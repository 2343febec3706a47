"""The settings in force, as check-config prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.daemon.shown_settings import settings_in_force
from monitor.settings import hide_url_secrets
from tests.daemon.configs import read


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://x/?token=S3CR3T", "http://x/?token=***"),
        ("http://x/?a=1&Access_Token=S3CR3T&b=2#c", "http://x/?a=1&Access_Token=***&b=2#c"),
        ("http://x/?pass%77ord=S3CR3T", "http://x/?pass%77ord=***"),
        ("http://x/#access_token=S3CR3T", "http://x/#access_token=***"),
        (
            "postgresql://u:S3CR3T@h/d?password=S3CR3T&sslpassword=S3CR3T&sslmode=require",
            "postgresql://u:***@h/d?password=***&sslpassword=***&sslmode=require",
        ),
        (
            "http://x/?passwd=S3CR3T&client_secret=S3C;R3T&k=1&api_key=S3CR3T",
            "http://x/?passwd=***&client_secret=***&k=1&api_key=***",
        ),
        ("http://x/?a=b&c", "http://x/?a=b&c"),
        ("'http://x/?token=S3CR3T' - at `$.url`", "'http://x/?token=*** - at `$.url`"),
    ],
)
def test_secrets_in_a_url_are_hidden_and_nothing_else(url: str, shown: str) -> None:
    assert hide_url_secrets(url) == shown


def test_a_good_jobs_url_is_printed_without_its_secrets(file: Path) -> None:
    text = "probes: {jobs: [{id: 1, url: 'http://x/?token=S3CR3T'}]}"
    shown = settings_in_force(read(file, text))
    assert "http://x/?token=***" in shown
    assert "S3CR3T" not in shown


def test_settings_in_force_are_a_config_again(file: Path) -> None:
    config = read(file, "relay: {origins: [https://a], keep_idle: 7}")
    again = read(file, settings_in_force(config))
    assert again == config
