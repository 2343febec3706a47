"""Where commands find the config of the daemon that they talk to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitor.commands import found_config
from monitor.commands.found_config import find_config
from monitor.errors import ConfigError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "config.yml"
    monkeypatch.setattr(found_config, "INSTALLED_CONFIG", str(file))
    return file


def test_without_an_installed_config_the_defaults_are_used(installed: Path) -> None:
    found = find_config(None, "api.uri", "api.tokens_file")
    assert found.loaded.file is None
    assert found.source == f"the defaults, because {installed} is not there"


def test_what_only_the_service_has_does_not_matter_to_other_sections(installed: Path) -> None:
    installed.write_text(
        "kafka: {sasl_plain_username: '${ONLY_THE_SERVICE_HAS_IT}'}\n"
        "database: {password_file: only-in-the-service}\n"
        "relay: {tls: {certificate: c.pem, key: '${ONLY_THE_SERVICE_HAS_IT}/key'}}\n"
        "probs: 1\n"
        "api: {uri: ['127.0.0.1', 9100], tokens_file: /srv/tokens.yml}\n"
    )
    found = find_config(None, "api.uri", "api.tokens_file")
    assert found.source == str(installed)
    assert found.loaded.config.api is not None
    assert found.loaded.config.api.uri == ("127.0.0.1", 9100)
    found = find_config(None, "websocket_uri", "relay.tls.certificate")
    assert found.loaded.config.relay is not None
    assert found.loaded.config.relay.tls is not None
    with pytest.raises(ConfigError, match=r":1: kafka.sasl_plain_username: .*ONLY_THE_SERVICE"):
        find_config(None, "bus", "kafka")


@pytest.mark.parametrize(
    "text",
    [
        "api: {tokens_fil: /srv/tokens.yml}\n",
        "api: {tokens_file: '${ONLY_THE_SERVICE_HAS_IT}'}\n",
        "api: [\n",
        "database: {url: '${ONLY_THE_SERVICE_HAS_IT}'}\nlogs: {timewindow: !!int ''}\n",
        "database: {url: '${ONLY_THE_SERVICE_HAS_IT}'}\nlogs: {timewindow: 2024-13-45}\n"
        "api: {tokens_fil: /srv/tokens.yml}\n",
        "- api\n",
        "\n".join(f"wrong{number}: {{" for number in range(30)),
    ],
)
def test_an_error_in_the_sections_that_it_uses_is_never_the_defaults(
    installed: Path, text: str
) -> None:
    installed.write_text(text)
    with pytest.raises(ConfigError, match=str(installed)):
        find_config(None, "api.uri", "api.tokens_file")


def test_a_file_with_too_many_errors_to_read_on_is_refused(installed: Path) -> None:
    errors = "".join(f"  key{number}: 1\n" for number in range(50))
    installed.write_text(f"kafka:\n{errors}api: {{tokens_file: /srv/tokens.yml}}\n")
    with pytest.raises(ConfigError, match=r":2: kafka.key0"):
        find_config(None, "api.uri", "api.tokens_file")


def test_a_config_that_this_user_may_not_read_is_named(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.write_text("api: {tokens_file: /srv/tokens.yml}\n")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert find_config(None, "api.uri", "api.tokens_file").source == (
        f"the defaults, because {installed} cannot be read by this user"
    )
    with pytest.raises(ConfigError, match="this user cannot read the file"):
        find_config(None, "api.tokens_file", must_read=True)
