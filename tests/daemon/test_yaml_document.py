"""YAML files: variables of the environment, and files that are not a config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given, settings

from monitor.daemon.config import Config, load
from monitor.errors import ConfigError
from tests.daemon.configs import complaint, read
from tests.examples import examples
from tests.files.broken import broken
from tests.servers.daemon import ROOT


def test_a_pipe_is_no_config_but_for_the_callers_own(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ConfigError, match="a pipe, not a regular file"):
        load(str(fifo))
    reading, writing = os.pipe()
    os.write(writing, b"relay: {keep_idle: 12}")
    os.close(writing)
    relay = load(f"/dev/fd/{reading}").config.relay
    os.close(reading)
    assert relay is not None
    assert relay.keep_idle == 12
    assert load("/dev/null").config == Config()


def test_values_come_from_the_environment(file: Path) -> None:
    config = read(
        file,
        'zeromq_uri: ["${HOST}", "${PORT}"]\nlogger: {file: "/var/${NAME}.log"}\n'
        "relay:\n  history_file: $${NAME}\n  keep_idle: ${IDLE}\n  max_clients: '${CLIENTS}'\n"
        "  allow_remote_exit: ${NO}\n  origins:\n  - http://a:${PORT}",
        HOST="10.0.0.1",
        PORT="1234",
        NAME="x",
        IDLE="1.5",
        CLIENTS="12",
        NO="false",
    )
    assert config.zeromq_uri == ("10.0.0.1", 1234)
    assert config.logger.file == "/var/x.log"
    assert config.relay is not None
    assert config.relay.history_file == "${NAME}"
    assert (config.relay.keep_idle, config.relay.max_clients) == (1.5, 12)
    assert config.relay.allow_remote_exit is False
    assert config.relay.origins == ("http://a:1234",)


@pytest.mark.parametrize(
    ("text", "secret", "said"),
    [
        ("probes: {source: '${D}'}", "pa55w'rd", 'not "${D}"'),
        (
            "bus:\n  max_bytes: ${D}",
            "hunter2",
            "bus.max_bytes: expected a whole number, not a text",
        ),
        ("database:\n  connections: ${D}", "918273645", "at most 100, not ${D}"),
        ("database:\n  password_file: ${D}", "hunter2", "cannot read ${D}: No such file"),
        ("database:\n  password_file: /x/${D}/y", "hunter2", "cannot read /x/${D}/y: No such"),
        # A value this short is not a secret, and is shown.
        ("database:\n  connections: ${D}", "0", "at least 1, not 0"),
    ],
)
def test_a_variable_in_the_wrong_place_is_named_and_its_value_not_shown(
    file: Path, text: str, secret: str, said: str
) -> None:
    complained = complaint(file, text, D=secret)
    assert said in complained
    assert len(secret) == 1 or secret not in complained


def test_an_alias_bomb_is_no_bomb(file: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert complaint(file, "\n".join(levels)).startswith(":7: more than 1000000 values")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"\0", b"[" * 100_000], ids=["bytes", "nul", "deep"]
)
def test_a_file_that_is_no_config_gets_one_line(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    assert "\n" not in str(caught.value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*Config.__struct_fields__, "keep_idle", "level", "file", "tls", "jobs"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


GOOD = (ROOT / "install/config.yml").read_text()
GOOD_WITH_ALL = (
    "websocket_uri: [127.0.0.1, 4567]\nlogger: &l {level: info, max-size: 10, rotations: 3}\n"
    "relay:\n  <<: {keep_idle: 7.5}\n  origins: [https://a, '${NAME}']\n  max_clients: ${N}\n"
    "probes:\n  source: config\n  jobs:\n  - &a {id: 1, url: http://a, headers: {x: y}}\n"
    "  - {<<: *a, id: 2, body_regexp: 'a+', expected_status: [200, 300-399]}\n"
    "logs: {}\napi: {uri: ['::1', 9000], origins: []}\nbus: {max_bytes: 2097152}\n"
)


@given(plain)
def test_any_yaml_is_a_config_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yml"
    file.write_text(yaml.safe_dump(data), "utf-8", "backslashreplace")
    try:
        load(str(file), environ={})
    except ConfigError as error:
        assert "\n" not in str(error)


@given(broken(GOOD, GOOD_WITH_ALL))
@settings(max_examples=examples(300))
def test_any_bytes_are_a_config_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yml"
    file.write_bytes(content)
    try:
        load(str(file), environ={"NAME": "https://b", "N": "12"})
    except ConfigError as error:
        assert str(error).startswith(str(file))
        assert "\n" not in str(error)
