"""Config files of ReCodEx monitor 1.x: they start with what 1.x made of them.

:class:`Old` is 1.x's documented behaviour, written down from what a released 1.3 does with a file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import assume, example, given, settings

from monitor.daemon.config import Config, LoadedConfig, load
from monitor.daemon.config_warnings import remarks
from monitor.errors import ConfigError
from tests.examples import examples
from tests.servers.daemon import StartDaemon, run_program

_LEVELS = ("debug", "info", "warning", "error", "critical")
_SIZES = {"max-size": 1048576, "rotations": 3}


class Old:
    """What 1.x does with a file; raises where it does not start, or does not listen."""

    def __init__(self, text: str) -> None:
        data = yaml.safe_load(text)
        self.level, self.sizes = "info", dict(_SIZES)
        self.websocket: tuple[str | tuple[str, ...], int] = ("127.0.0.1", 4567)
        self.zeromq = ("127.0.0.1", 7894)
        if "websocket_uri" in data:
            host, port = data["websocket_uri"]
            # asyncio takes several hosts, no host for all addresses, and no port for any.
            self.websocket = _hosts_of(host), _websocket_port(port)
        if "zeromq_uri" in data:
            host, port = data["zeromq_uri"][0], data["zeromq_uri"][1]
            # Both become text, and libzmq reads as far as there are digits, in 16 bits.
            assert isinstance(host, (str, int, float))
            assert not isinstance(host, bool)
            self.zeromq = str(host), _zeromq_port(str(port))
        assert isinstance(self.zeromq[0], str)
        section = data.get("logger", {})
        if "level" in section:
            level = section["level"]
            hash(level)
            self.level = level if level in _LEVELS else "info"
        for name, default in _SIZES.items():
            if name in section:
                try:
                    number = int(section[name])
                except (TypeError, ValueError, OverflowError):
                    number = default
                # The logging module never rotates by a size or a number below 1.
                self.sizes[name] = max(0, min(number, 1000 if name == "rotations" else 2**40))


def _hosts_of(host: Any) -> str | tuple[str, ...]:
    if isinstance(host, list):
        assert host
        assert all(isinstance(each, str) for each in host)
        return tuple(host)
    assert host is None or isinstance(host, str)
    return host or ""


def _websocket_port(port: Any) -> int:
    number = 0 if port in (None, "") and not isinstance(port, bool) else int(port)
    assert 0 <= number <= 65535
    return number


def _zeromq_port(port: str) -> int:
    if port in ("*", "0"):
        return 0
    digits = re.match(r"\s*([-+]?[0-9]+)", port)
    assert digits
    number = int(digits[1])
    assert -(2**31) <= number < 2**31
    assert number & 0xFFFF
    return number & 0xFFFF


def read(file: Path, text: str) -> LoadedConfig:
    file.write_text(text, "utf-8", "surrogateescape")
    return load(str(file), environ={})


def compare(config: Config, old: Old) -> None:
    assert config.websocket_uri == old.websocket
    assert config.zeromq_uri == old.zeromq
    assert config.logger.level == old.level
    assert config.logger.max_size == old.sizes["max-size"]
    assert config.logger.rotations == old.sizes["rotations"]


_FIRST_SHIPPED = """---
websocket_uri:
    - "127.0.0.1"
    - 4567
zeromq_uri:
    - "127.0.0.1"
    - 7894
logger_path: "/var/log/recodex/monitor.log"
...
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_FIRST_SHIPPED, ":8: logger_path: unknown key, ignored"),
        ("logger:\n  level: nonexisting", ":2: logger.level: expected debug, info, warning, error"),
        ("logger:\n  level: DEBUG", "not 'DEBUG'; using info, as version 1 did"),
        ("logger:\n  level:", ":2: logger.level: expected debug"),
        ("logger: {level: off}", ":1: logger.level: expected debug"),
        ("logger: {max-size: 10M}", ":1: logger.max-size: expected a whole number, not '10M'; "),
        ("logger: {max-size: -1}", ":1: logger.max-size: -1 is read as 0 (never rotate)"),
        ("logger: {max-size: 1.5}", ":1: logger.max-size: 1.5 is read as 1, as version 1 did"),
        ("logger: {max-size: .inf}", "not inf; using 1048576, as version 1 did"),
        ("logger: {max-size: 010}", ":1: logger.max-size: 010 is read as 8, as version 1 did"),
        ("logger: {max-size: '1_000'}", ":1: logger.max-size: '1_000' is read as 1000"),
        ("logger:\n\n  rotations: none", ":3: logger.rotations: expected a whole number"),
        ("logger: {rotations: 20000}", ":1: logger.rotations: 20000 is read as 1000"),
        ("logger:\n  file:\n", ":2: logger.file: expected the name of a file; using /var/log/"),
        ('logger: {file: "a\\0b"}', ":1: logger.file: expected the name of a file"),
        ("logger: {max_size: 5}", ":1: logger.max_size: unknown key, ignored; did you mean max-s"),
        ("logger: {1: 5}", ":1: logger.1: unknown key, ignored"),
        ("logger: {level: debug,\n level: error}", ":2: logger.level: duplicate key; this one"),
        ("logger: text", ":1: logger: expected a section of keys; using the defaults"),
        ("comment: {a: [1, '${NOT_SET}']}", ":1: comment: unknown key, ignored"),
        ("1: x", ":1: 1: unknown key, ignored"),
        ("on: {yes: 1, yes: 2}", ":1: on: unknown key, ignored"),
        ("a: &x {b: 1}\n<<: *x", ":1: a: unknown key, ignored"),
        ("zeromq_uri: [a, 1]\nzeromq_uri: [b, 2]", ":2: zeromq_uri: duplicate key; this one"),
        ("zeromq_uri:\n- 127.0.0.1\n- 7895\n- tcp", ":4: zeromq_uri[2]: ignored, as version 1"),
        ("zeromq_uri: [127.0.0.1, '*']", ":1: zeromq_uri[1]: no port; listening on any free one"),
        ("websocket_uri: [~, 4568]", ":1: websocket_uri[0]: no host; listening on all addresses"),
        ("websocket_uri: [127.0.0.1, ~]", ":1: websocket_uri[1]: no port; listening on any free"),
        ("websocket_uri: [127.0.0.1, 4567.0]", ":1: websocket_uri[1]: 4567.0 is read as 4567, as"),
        ("websocket_uri: [127.0.0.1, '4_567']", ":1: websocket_uri[1]: '4_567' is read as 4567"),
        ("websocket_uri: [127.0.0.1, 1:16:7]", ":1: websocket_uri[1]: 1:16:7 is read as 4567, as"),
        ("zeromq_uri: [127.0.0.1, 73430]", ":1: zeromq_uri[1]: 73430 is read as 7894, as version"),
        ("zeromq_uri: [127.0.0.1, 7894.0]", ":1: zeromq_uri[1]: 7894.0 is read as 7894, as vers"),
        ("zeromq_uri: [127.1, 7894]", ":1: zeromq_uri[0]: 127.1 is read as the host '127.1', as"),
        ("logger: {max-size: -010}", ":1: logger.max-size: -010 is read as 0 (never rotate), as"),
        ("logger: {max-size: 1:2.5}", ":1: logger.max-size: 1:2.5 is read as 62, as version 1"),
        ("websocket_url: [a, 1]", ":1: websocket_url: unknown key, ignored; did you mean websocke"),
        ("Logger: {level: x}", ":1: Logger: unknown key, ignored; did you mean logger?"),
        ("log: /var/log/x", ":1: log: unknown key, ignored; did you mean logs?"),
    ],
)
def test_what_version_1_took_leniently_starts_with_one_warning(
    tmp_path: Path, text: str, said: str
) -> None:
    loaded = read(tmp_path / "config.yml", text)
    # That a broker of another host may connect is another matter.
    found = [line for line in remarks(loaded) if "is open to other hosts" not in line]
    assert any(said in line for line in found), found
    # The merged mapping is read at both of its places.
    assert len(found) == (2 if "<<" in text else 1)
    if text != "logger: text":
        compare(loaded.config, Old(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("probs: {}", ":1: probs: unknown key; did you mean probes?"),
        ("log: {timewindow: 5}", ":1: log: unknown key; did you mean logs?"),
        ("relays:", ":1: relays: unknown key; did you mean relay?"),
        ("websocket_uri: [[], 1]", ":1: websocket_uri[0]: expected a list"),
        ("websocket_uri: [[127.0.0.1, a b], 1]", ":1: websocket_uri[0][1]: expected an IP"),
        ("zeromq_uri: [[127.0.0.1], 1]", ":1: zeromq_uri[0]: expected a text, not a list"),
        ("relay: {level: x}", ":1: relay.level: unknown key"),
        ("logger: {{ log_file }}", ":1: logger: keys must be strings"),
        ("relay: {}\nrelay: {}", ":2: relay: duplicate key"),
        ("websocket_uri: [127.0.0.1, 1, 2]", ':1: websocket_uri: expected ["HOST", PORT]'),
        ("zeromq_uri: [~, 1]", ":1: zeromq_uri[0]: expected a text, not null"),
        ("extra: !!python/name:os.system ''", ":1: the tag !!python/name:os.system is not"),
    ],
)
def test_what_version_1_did_not_run_with_stays_an_error(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "config.yml", text)
    assert str(caught.value).removeprefix(str(tmp_path / "config.yml")).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zeromq_uri: {0: 127.0.0.1, 1: 7894}", ":1: zeromq_uri.0: keys must be strings"),
        ("websocket_uri: {127.0.0.1: x, localhost: y}", ":1: websocket_uri: expected"),
        ("websocket_uri: [!!binary MTI3LjAuMC4x, 1]", ":1: the tag !!binary is not"),
        ("logger: {file: !!binary L3RtcC94}", ":1: the tag !!binary is not"),
        ("logger: {file: '/var/${NAME}.log'}", ":1: logger.file: "),
    ],
)
def test_what_version_1_read_by_chance_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "config.yml", text)
    assert str(caught.value).removeprefix(str(tmp_path / "config.yml")).startswith(said)


_words = st.text("abdegilnorsuw_-:~*. 0123456789", max_size=8)
_scalars = (
    st.sampled_from([*_LEVELS, "DEBUG", "off", "10M", "none", "", "*", "0x10", "1_0", "010"])
    | st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 65535)
    | st.floats()
    | st.dates()
    | _words
)
_values = _scalars | st.lists(_scalars, max_size=3) | st.dictionaries(_words, _scalars, max_size=2)
_names = st.sampled_from(["127.0.0.1", "0.0.0.0", "localhost", "", "*", "::ffff:127.0.0.1"])
_hosts = _names | st.none() | st.lists(_names, max_size=3) | st.sampled_from([0, 127.1])
_numbers = st.integers(0, 65535)
_ports = (
    _numbers
    | st.sampled_from([None, "", "*", "010", "-010", "1:16:7", "1:2.5", "4_5", "9 x", True])
    | _numbers.flatmap(lambda n: st.sampled_from([str(n), f" {n} ", f"+{n}", float(n), hex(n)]))
    | st.integers(-(2**31), 2**31)
)
_addresses = st.tuples(_hosts, _ports).map(list)
_logger = st.dictionaries(
    st.sampled_from(["file", "level", "max-size", "rotations", "max_size", "format"]) | _words,
    _values,
    max_size=5,
)
_configs = st.fixed_dictionaries(
    {},
    optional={
        "websocket_uri": _addresses,
        "zeromq_uri": st.tuples(_addresses, st.lists(_scalars, max_size=2)).map(
            lambda found: found[0] + found[1]
        ),
        "logger": _logger,
        "logger_path": _values,
        "comment": _values,
        "version": _values,
        # Nearly one of 1.x's keys.
        "websocket_url": _values,
        "Logger": _values,
    },
)


@given(_configs, st.booleans())
@example({"zeromq_uri": ["127.0.0.1", "010"]}, False)
@example({"zeromq_uri": ["127.0.0.1", 1, {0: "", True: [{None: 1}]}]}, False)
@example({"comment": ["a:", ":b", "-:"]}, True)
@example({"logger": {"level": "a:"}, "version": {"": ":"}}, True)
@settings(max_examples=examples(150))
def test_mutated_configs_have_the_effect_that_they_had_with_version_1(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any], flow: bool
) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=True)
    # Without quotes: YAML 1.1 sees numbers, dates and booleans that YAML 1.2 does not know.
    for form in (text, text.replace("'", "")):
        try:
            old = Old(form)
        except Exception:  # noqa: BLE001 - whatever 1.x ended with, it did not run
            assume(form is not text)
            continue
        loaded = read(tmp_path_factory.getbasetemp() / "old.yml", form)
        compare(loaded.config, old)
        places = [str(remark).split(": ")[:2] for remark in loaded.remarks]
        assert len(places) == len({tuple(place) for place in places})


@pytest.mark.integration_test
def test_check_config_shows_the_warnings_with_status_0(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("logger:\n  level: nonexisting\n  max-size: 10M\nlogger_path: /x\n")
    environ = {**os.environ, "STATE_DIRECTORY": str(tmp_path)}
    done = run_program("check-config", "-c", str(file), env=environ)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert [line.split(": ")[1:3] for line in lines] == [
        [f"{file}:2", "logger.level"],
        [f"{file}:3", "logger.max-size"],
        [f"{file}:4", "logger_path"],
    ]
    assert "level: info" in done.stdout
    assert "max-size: 1048576" in done.stdout


@pytest.mark.integration_test
def test_the_daemon_logs_the_warnings_at_the_start_and_at_a_reload(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    text = (
        f"websocket_uri: [127.0.0.1, 0]\nzeromq_uri: [127.0.0.1, 0, x]\nextra: 1\n"
        f"logger:\n  file: {tmp_path}/monitor.log\n  level: {{}}\n"
    )
    daemon = start_daemon(text.format("verbose")).wait_ready()
    for said in (":2: zeromq_uri[2]: ignored", ":3: extra: unknown key", ":6: logger.level: "):
        assert "[WARNING]" in daemon.wait_log(said)
    daemon.write_config(text.format("loud"))
    daemon.reload()
    daemon.wait_log("not 'loud'; using info")
    assert daemon.stop() == 0


def test_a_file_full_of_unknown_keys_gives_a_bounded_number_of_warnings(tmp_path: Path) -> None:
    loaded = read(tmp_path / "config.yml", "".join(f"x{n}: {n}\n" for n in range(500)))
    assert len(remarks(loaded)) == 21
    assert remarks(loaded)[-1].endswith(": 480 more values are read as version 1 did")
