"""What a config may contain, and the errors of a bad one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq.auth

from monitor.daemon.assembly import PARTS, Services
from monitor.daemon.config import Config, load
from monitor.errors import ConfigError, SettingError
from monitor.logs.settings import LogsSettings
from monitor.settings import Section
from monitor.web.context import PartsStatus
from tests.daemon.configs import complaint, read
from tests.servers.daemon import ROOT


def test_a_config_of_the_old_monitor_works_as_it_is(file: Path) -> None:
    config = read(
        file,
        """---
websocket_uri:
    - "127.0.0.1"
    - 4568
zeromq_uri:
    - "127.0.0.1"
    - "7895"
logger:
    file: "/tmp/monitor.log"
    level: "debug"
    max-size: "2097152"
    rotations: 5
...
""",
    )
    assert config.websocket_uri == ("127.0.0.1", 4568)
    assert config.zeromq_uri == ("127.0.0.1", 7895)
    assert config.logger.max_size == 2097152
    assert config.logger.rotations == 5
    assert config.relay is not None


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "relay:\n", "logger:\n"])
def test_an_empty_file_or_section_means_the_defaults(file: Path, text: str) -> None:
    assert read(file, text) == Config()


def test_a_topic_of_the_relay_needs_kafka_and_no_file(file: Path) -> None:
    file.write_text("relay:\n  topic: relay\n")
    with pytest.raises(ConfigError, match=r":2: relay\.topic: needs the section kafka"):
        load(str(file))
    file.write_text("kafka: {}\nrelay:\n  topic: relay\n  history_file: h.db\n")
    with pytest.raises(ConfigError, match=r":4: relay\.history_file: conflicts with topic"):
        load(str(file))
    file.write_text("kafka: {}\nrelay:\n  topic: a/b\n")
    with pytest.raises(ConfigError, match=r":3: relay\.topic: a topic has letters"):
        load(str(file))


def test_the_relay_can_be_turned_off(file: Path) -> None:
    assert read(file, "relay: false").relay is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aggregatoin: {}", ":1: aggregatoin: unknown key; did you mean aggregation?"),
        ("relay:\n  max_client: 3", ":2: relay.max_client: unknown key; did you mean max_clients?"),
        (
            "relay:\n  tls: {certificat: x}",
            ":2: relay.tls.certificat: unknown key; did you mean certificate?",
        ),
        ("relay:\n\n  tls: {key: x}", ":3: relay.tls: the key certificate is missing"),
        (
            "logs: {timewindow: 1h}",
            ":1: logs.timewindow: expected a number without a unit; times are in seconds",
        ),
        ("bus: {max_bytes: 10 MB}", ":1: bus.max_bytes: expected a number without a unit"),
        (
            "bus: {file: 10m, max_bytes: x}",
            ":1: bus.max_bytes: expected a whole number, not a text",
        ),
        ("a: 1\nb: {c: ${D}}", ":2: not YAML: within braces or brackets a ${NAME} needs quotes"),
        ("relay: 3", ":1: relay: expected a section of keys, not a whole number"),
        ("relay: [{a: 1}]", ":1: relay: expected a section of keys, not a list"),
        ("relay: {tls: []}", ":1: relay.tls: expected a section of keys, not a list"),
        ("relay: {origins: {}}", ":1: relay.origins: expected a list, not a section of keys"),
        ("relay: {max_clients: []}", ":1: relay.max_clients: expected a whole number, not a list"),
        (
            "websocket_uri: [127.0.0.1, 70000]",
            ":1: websocket_uri[1]: expected a whole number, at most 65535, not 70000",
        ),
        ("zeromq_uri: 7894", ':1: zeromq_uri: expected ["HOST", PORT], not a whole number'),
        ("websocket_uri: '127.0.0.1:80'", ':1: websocket_uri: expected ["HOST", PORT], not a text'),
        ("websocket_uri: [127.0.0.1]", ':1: websocket_uri: expected ["HOST", PORT]'),
        ("api: {uri: localhost}", ':1: api.uri: expected ["HOST", PORT], not a text'),
        ("logs: {zeromq_uri: {}}", ':1: logs.zeromq_uri: expected ["HOST", PORT], not a section'),
        ("relay: {origins: [1]}", ":1: relay.origins[0]: expected a text, not a whole number"),
        ("relay: {}\nrelay: {}", ":2: relay: duplicate key"),
        ("relay:\n  1: x", ":2: relay.1: keys must be strings: quote 1"),
        (
            "probes: {jobs: [{id: 1, url: 'http://x/', headers: {2: x}}]}",
            ":1: probes.jobs[0].headers.2: keys must be strings: quote 2",
        ),
        ("relay: {on: x}", ":1: relay.on: keys must be strings: quote on"),
        (
            "cluster: {kinds: [Pod, Foo]}",
            ":1: cluster.kinds[1]: expected one of DaemonSet, Deployment, DeploymentConfig, ",
        ),
        (
            "probes: {source: x}",
            ":1: probes.source: expected one of config, database, file, not 'x'",
        ),
        (
            "probes: {jobs: [{id: 1, url: 'http://x/', ip_version: 5}]}",
            ":1: probes.jobs[0].ip_version: expected one of ",
        ),
        (
            "aggregation: {granularities: [week]}",
            ":1: aggregation.granularities[0]: expected one of",
        ),
        # Base 60, octal and a day in YAML 1.1, none of which is meant.
        ("relay: {keep_finished: 1:30}", ":1: relay.keep_finished: expected a number, not a text"),
        ("relay: {max_clients: 2.5}", ":1: relay.max_clients: expected a whole number, not 2.5"),
        ("relay: {max_clients: 1e6}", ":1: relay.max_clients: expected a whole number, not a text"),
        ("relay: {max_clients: 010}", ":1: relay.max_clients: expected a whole number, not a text"),
        ("logs: {timewindow: 2021-02-09}", ":1: logs.timewindow: expected a number, not a text"),
        ("relay: [", ":2: not YAML: "),
        (r'api: {tokens_file: "a\0b"}', ":1: api.tokens_file: must not contain NUL"),
        (r'database: {password_file: "\0"}', ":1: database.password_file: must not contain NUL"),
        (
            r'alerts: {rules: [{name: "a\ud800", watch: site}]}',
            ":1: alerts.rules[0].name: is not valid Unicode: half of a surrogate pair",
        ),
        (
            r'logs: {"time\nwindow": 1}',
            r":1: logs.time\nwindow: unknown key; did you mean timewindow?",
        ),
        ("relay:\n\tkeep_idle: 3", ":2: not YAML: indent with spaces, not tabs"),
        ("relay:\n  keep_idle: 3\n  \tmax: 3", ":3: not YAML: indent with spaces, not tabs"),
        ("relay: @", ":1: not YAML: found character that cannot start any token"),
        ("relay: *nothing", ":1: not YAML: found undefined alias"),
        ("- a\n- b", ":1: expected keys and values at the top"),
        (
            "relay:\n  keep_idle: ${NOT_SET}",
            ":2: relay.keep_idle: environment variable NOT_SET is not set",
        ),
        ("x: !!python/object:os.system {}", ":1: "),
    ],
)
def test_what_is_wrong_is_said_by_line_and_key(file: Path, text: str, said: str) -> None:
    assert complaint(file, text).startswith(said)


@pytest.mark.parametrize("name", ["010", "2021-02-09", "1e3", "0o17"])
def test_text_that_looks_like_a_number_elsewhere_is_text(file: Path, name: str) -> None:
    config = read(file, f"cluster: {{name: {name}}}")
    assert config.cluster is not None
    assert config.cluster.name == name


def test_numbers_are_written_as_usual(file: Path) -> None:
    config = read(file, "relay: {keep_finished: 90.5, client_stall: .5, max_clients: 1_000}")
    assert config.relay is not None
    assert (config.relay.keep_finished, config.relay.client_stall) == (90.5, 0.5)
    assert config.relay.max_clients == 1000
    config = read(file, "relay: {keep_finished: 1.0e+2, max_clients: 0x10, max_messages: 0b11}")
    assert config.relay is not None
    assert (config.relay.keep_finished, config.relay.max_clients) == (100, 16)
    assert config.relay.max_messages == 3


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "0", "3.3e+9", "1" + "0" * 30])
@pytest.mark.parametrize("key", ["relay.keep_idle", "logs.timewindow", "logs.cleanup_interval"])
def test_seconds_are_above_0_and_at_most_a_century(file: Path, key: str, value: str) -> None:
    section, name = key.split(".")
    assert complaint(file, f"{section}: {{{name}: {value}}}").startswith(f":1: {key}: expected ")


@pytest.mark.parametrize(
    "key",
    [
        "relay.max_message_bytes",
        "relay.max_clients",
        "relay.max_history_bytes",
        "logs.max_message_bytes",
        "logs.max_followers",
        "logs.max_pending_bytes",
        "api.max_body_bytes",
        "api.keep_alive",
        "probes.id",
    ],
)
def test_numbers_beyond_reason_are_refused(file: Path, key: str) -> None:
    section, name = key.split(".")
    said = complaint(file, f"{section}: {{{name}: {10**24}}}")
    assert said.startswith(f":1: {key}: expected ")


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "0", "1e10", "1e999", "soon"])
@pytest.mark.parametrize(
    ("variable", "field"),
    [("LOGS_TIMEWINDOW", "timewindow"), ("CLEANUP_INTERVAL", "cleanup_interval")],
)
def test_the_environments_seconds_have_the_same_bounds(
    monkeypatch: pytest.MonkeyPatch, variable: str, field: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    services = Services(Config(logs=LogsSettings()), stop=lambda _: None, status=PartsStatus({}))
    with pytest.raises(SettingError, match=rf"^logs.{field}: .* in \${variable}, not "):
        [make(services) for make in PARTS]


@pytest.mark.parametrize(
    "job",
    [
        "{id: 1, kind: websocket, url: 'http://x/?token=S3CR3T'}",
        "{id: 1, url: 'http://x:99999/?token=S3CR3T'}",
        "{id: 1, kind: tcp, url: 'tcp://x/?token=S3CR3T'}",
    ],
)
def test_a_bad_jobs_url_keeps_its_secrets(file: Path, job: str) -> None:
    assert "S3CR3T" not in complaint(file, f"probes: {{jobs: [{job}]}}")


def test_only_whole_curve_keys_are_keys(tmp_path: Path, file: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    _, secret = zmq.auth.create_certificates(tmp_path, "relay")
    zmq.auth.create_certificates(allowed, "broker")
    text = f"relay: {{curve: {{secret_key_file: {secret}, public_keys_dir: {allowed}}}}}"
    read(file, text)
    for content, said in (
        ('public-key = "abc"', "odd.key has no CURVE public key (40 characters)"),
        (f'public-key = "{"#" * 40}"', "odd.key has no CURVE public key"),
        (f'public-key = "{"é" * 40}"', "odd.key has no CURVE public key"),
        ("nothing", "odd.key has no CURVE public key"),
        ("", "odd.key is empty"),
    ):
        (allowed / "odd.key").write_text(content)
        assert said in complaint(file, text)
    (allowed / "odd.key").unlink()
    os.mkfifo(allowed / "odd.key")
    assert "odd.key: a pipe, not a regular file" in complaint(file, text)
    (allowed / "odd.key").unlink()
    Path(secret).write_text("abc")
    assert "has no CURVE secret key (40 characters)" in complaint(file, text)
    Path(secret).write_text("#" * 40)
    assert "has no valid CURVE key" in complaint(file, text)


def _keys(section: type, prefix: str = "") -> set[str]:
    found = set()
    for field in msgspec.structs.fields(section):
        found.add(f"{prefix}{field.encode_name}")
        for kind in getattr(field.type, "__args__", (field.type,)):
            if isinstance(kind, type) and issubclass(kind, Section):
                found |= _keys(kind, f"{prefix}{field.encode_name}.")
    return found


def test_the_packaged_config_is_the_defaults_and_names_every_key() -> None:
    text = (ROOT / "install" / "config.yml").read_text()
    packaged, defaults = load(str(ROOT / "install" / "config.yml"), environ={}).config, Config()
    assert packaged == defaults
    named = set(re.findall(r"(?m)(?:^|[{,#-])\s*([a-z][a-z_-]*):", text))
    missing = {key for key in _keys(Config) if key.rsplit(".", 1)[-1] not in named}
    assert not missing


def test_a_checkouts_config_is_good() -> None:
    load(str(ROOT / "install" / "checkout.yml"), environ={})


def test_all_errors_of_a_config_are_named_in_the_order_of_the_file(file: Path) -> None:
    file.write_text(
        "relay:\n"
        "  keep_finished: soon\n"
        "  keep_idel: 5\n"
        "  keep_idle: -1\n"
        "probes:\n"
        "  jobs:\n"
        "    - {id: 1, url: 'http://a.test/', interval: often}\n"
        "    - {id: 2, kind: tcp, url: 'http://b.test/'}\n"
        "    - {id: 3, url: 'http://c.test/', bodi: x}\n"
        "    - {id: 4, url: 'http://d.test/'}\n"
        "    - {id: 4, url: 'http://e.test/'}\n"
        "kafka: {bootstrap_servers: ['${NOWHERE_SET}']}\n"
        "logs: {timewindow: 5, timewindow: 6}\n"
        "api: {uri: [127.0.0.1, many]}\n"
    )
    with pytest.raises(ConfigError) as error:
        load(str(file), environ={})
    lines = [line.removeprefix(str(file)) for line in error.value.lines()]
    assert [line.split(": ", 2)[:2] for line in lines] == [
        [":2", "relay.keep_finished"],
        [":3", "relay.keep_idel"],
        [":4", "relay.keep_idle"],
        [":7", "probes.jobs[0].interval"],
        [":8", "probes.jobs[1].url"],
        [":9", "probes.jobs[2].bodi"],
        [":11", "probes.jobs[4].id"],
        [":12", "kafka.bootstrap_servers[0]"],
        [":13", "logs.timewindow"],
        [":14", "api.uri[1]"],
    ]


def test_an_error_of_a_whole_section_is_told_once_beside_others(file: Path) -> None:
    file.write_text(
        "database: {url: 'postgresql://m@127.0.0.1/m', password_file: nowhere}\n"
        "probes:\n"
        "  jobs:\n"
        "    - {id: 1, kind: ping, url: 'ping://a.test', method: GET}\n"
        "    - {id: 2, kind: ping, url: 'ping://b.test', method: GET}\n"
    )
    with pytest.raises(ConfigError) as error:
        load(str(file), environ={})
    places = [line.removeprefix(str(file)).split(": ")[0] for line in error.value.lines()]
    assert places == [":1", ":4", ":5"]


def test_a_key_that_is_left_out_as_invalid_is_not_called_missing(file: Path) -> None:
    file.write_text("probes:\n  jobs:\n    - {id: one, url: 5}\n    - {name: x}\n")
    with pytest.raises(ConfigError) as error:
        load(str(file))
    assert [line.removeprefix(str(file)) for line in error.value.lines()] == [
        ":3: probes.jobs[0].id: expected a whole number, not a text",
        ":3: probes.jobs[0].url: expected a text, not a whole number",
        ":4: probes.jobs[1]: the key id is missing",
    ]


def test_all_that_is_wrong_with_an_item_or_a_section_is_told_at_once(file: Path) -> None:
    file.write_text(
        "probes:\n"
        "  jobs:\n"
        "    - {id: 1, url: 'htp://a', method: ' ', json: '(', server_name: ' ',\n"
        "       depends_on: [8, 9]}\n"
        "alerts:\n"
        "  receivers:\n"
        "    - {name: oncall, alertmanager: ['http://a', 'ftp://b']}\n"
        "    - {name: hook, webhook: 'ftp://a', secret_file: /nowhere}\n"
        "  rules: [{name: down, watch: site, receivers: [oncal, hook, nobody]}]\n"
        "  maintenance: [{name: night, from: '25:00', until: '26:00', time_zone: Mars}]\n"
        "api: {trusted_proxies: [1.1.1.1, x], root_path: 'y/', origins: [z]}\n"
    )
    with pytest.raises(ConfigError) as error:
        load(str(file), environ={})
    lines = [line.removeprefix(str(file)).split(": ", 2)[:2] for line in error.value.lines()]
    job = "probes.jobs[0]"
    assert lines == [
        *([":3", f"{job}.{key}"] for key in ("url", "server_name", "method", "json")),
        *([":4", f"{job}.depends_on"] for _ in (8, 9)),
        [":7", "alerts.receivers[0].alertmanager[1]"],
        [":8", "alerts.receivers[1].webhook"],
        [":8", "alerts.receivers[1].secret_file"],
        [":9", "alerts.rules[0].receivers[0]"],
        [":9", "alerts.rules[0].receivers[2]"],
        *([":10", f"alerts.maintenance[0].{key}"] for key in ("from", "until", "time_zone")),
        *([":11", f"api.{key}"] for key in ("trusted_proxies[1]", "root_path", "origins[0]")),
    ]


def test_all_that_is_wrong_with_a_job_of_any_kind_is_told_at_once(file: Path) -> None:
    file.write_text(
        "probes:\n"
        "  topic: a b\n"
        "  jobs:\n"
        "    - {id: 1, kind: tcp, url: 'tcp://a', dialogue: [{}, {expect: '('}], starttls: smtp,"
        " tls: true}\n"
        "    - {id: 2, kind: dns, url: 'dns://a/b/c', expected_rcode: X, expected: ['(', '[']}\n"
        "    - {id: 3, kind: websocket, url: 'ws://u@a/', headers: {Upgrade: x}, ca_file: /no}\n"
        "    - {id: 4, kind: grpc, url: 'grpc://u:p@a:1/', verify_tls: false}\n"
        "    - {id: 5, kind: heartbeat, url: x, timeout: 3, retries: 1}\n"
        "bus: {file: '', max_bytes: 1}\n"
    )
    with pytest.raises(ConfigError) as error:
        load(str(file), environ={})
    lines = [line.removeprefix(str(file)).split(": ", 2)[:2] for line in error.value.lines()]
    keys = {
        ":4": ["url", "dialogue[0]", "dialogue[1].expect", "starttls"],
        ":5": ["url", "expected_rcode", "expected[0]", "expected[1]"],
        ":6": ["url", "ca_file", "ca_file", "headers.Upgrade"],
        ":7": ["url", "verify_tls"],
        ":8": ["url", "retries", "timeout"],
    }
    jobs = [
        [line, f"probes.jobs[{job}].{key}"]
        for job, (line, all_) in enumerate(keys.items())
        for key in all_
    ]
    expected = [[":2", "probes.topic"], *jobs, [":9", "bus.file"], [":9", "bus.max_bytes"]]
    assert sorted(lines) == sorted(expected)


def test_what_names_an_invalid_item_of_another_list_is_no_error_too(file: Path) -> None:
    file.write_text(
        "probes:\n"
        "  jobs:\n"
        "    - {id: 1, url: 'htp://a.test/'}\n"
        "    - {id: 2, url: 'http://b.test/', depends_on: [1]}\n"
        "alerts:\n"
        "  receivers: [{name: oncall, urls_file: /nowhere}]\n"
        "  rules: [{name: down, watch: site, receivers: [oncall]}]\n"
    )
    with pytest.raises(ConfigError) as error:
        load(str(file), environ={})
    lines = [line.removeprefix(str(file)).split(": ", 2)[:2] for line in error.value.lines()]
    assert lines == [[":3", "probes.jobs[0].url"], [":6", "alerts.receivers[0].urls_file"]]


def test_a_file_full_of_errors_gives_a_bounded_number_of_lines(file: Path) -> None:
    file.write_text("relay:\n" + "".join(f"  key{number}: x\n" for number in range(500)))
    with pytest.raises(ConfigError) as error:
        load(str(file))
    assert len(error.value.lines()) == 20


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the types to which data is converted, one by one."""
    looks = []
    convert = msgspec.convert

    def counted(data: Any, kind: Any) -> Any:
        looks.append(kind)
        return convert(data, kind)

    monkeypatch.setattr(msgspec, "convert", counted)
    return looks


@pytest.mark.parametrize(
    ("text", "item", "lines"),
    [
        ("alerts:\n  rules:\n", "{name: same, watch: silence}", 20),
        ("probes:\n  jobs:\n", "{id: 1, url: 'http://127.0.0.1/'}", 20),
        # Not an error of its own: only the receiver's is shown.
        (
            "alerts:\n  receivers: [{name: a, webhok: x}]\n  rules:\n",
            "{name: '%d', watch: silence, receivers: [a]}",
            1,
        ),
    ],
)
def test_errors_of_one_kind_are_found_in_a_few_looks_at_the_config(
    file: Path, looks: list[Any], text: str, item: str, lines: int
) -> None:
    items = (item.replace("%d", str(number)) for number in range(200))
    file.write_text(text + "".join(f"    - {each}\n" for each in items))
    with pytest.raises(ConfigError) as error:
        load(str(file))
    assert len(error.value.lines()) == lines
    assert looks.count(Config) <= 4


def test_the_numbers_of_variables_are_found_in_a_few_looks_at_the_config(
    file: Path, looks: list[Any]
) -> None:
    job = "    - {id: '${ID%d}', url: 'http://a', interval: '${S}', headers: {x: '${S}'}}\n"
    file.write_text(
        "probes:\n  jobs:\n"
        + "".join(job.replace("%d", str(number)) for number in range(1, 201))
        + "    - {id: 201, url: 'http://a', depends_on: ["
        + ", ".join(f"'${{ID{number}}}'" for number in range(1, 31))
        + "]}\n"
    )
    environ = {f"ID{number}": str(number) for number in range(1, 201)}
    probes = load(str(file), environ={**environ, "S": "30"}).config.probes
    assert probes is not None
    assert [job.id for job in probes.jobs] == [*range(1, 202)]
    assert {job.interval for job in probes.jobs[:-1]} == {30.0}
    assert {job.headers["x"] for job in probes.jobs[:-1]} == {"30"}  # type: ignore[attr-defined]
    assert probes.jobs[-1].depends_on == [*range(1, 31)]
    # One a key, and one each for the first items of depends_on.
    assert looks.count(Config) == 6


def test_a_value_as_long_as_the_file_is_shown_in_part(file: Path) -> None:
    said = complaint(file, f"relay: {{origins: ['{'x' * 100_000}']}}")
    assert "relay.origins[0]: expected" in said
    assert len(said) < 5000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("database: {file: pipe}\nlogs: {}", "1: database.file: *pipe is a pipe, not a file"),
        ("bus: {file: folder}\nprobes: {}", "1: bus.file: *folder is a directory, not a file"),
        (
            "bus: {file: /dev/null}\nalerts: {}",
            "1: bus.file: /dev/null is a device or a socket, not a file",
        ),
        ("relay: {history_file: pipe}", "1: relay.history_file: *pipe is a pipe, not a file"),
        ("bus: {file: monitor.db}\nprobes: {}", "1: bus.file: *monitor.db"),
        ("database: {file: a.db}\nbus: {file: link.db}\nprobes: {}", "2: bus.file: *link.db"),
        ("database: {file: a.db}\nbus: {file: hard.db}\nprobes: {}", "2: bus.file: *hard.db"),
        ("bus: {file: monitor.db-wal}\nprobes: {}", "1: bus.file: *monitor.db-wal"),
        (
            "database: {file: a.db}\nlogs: {}\nrelay: {history_file: x/../link.db}",
            "3: relay.history_file: *x/../link.db",
        ),
        ("logger: {file: FOLDER/a.db}\ndatabase: {file: a.db}\nlogs: {}", "1: logger.file: *a.db"),
        ("logger: {file: FOLDER/log}\ndatabase: {file: log.2}\nlogs: {}", "1: logger.file: *log"),
        ("logger: {file: FOLDER/t}\napi: {tokens_file: FOLDER/t}", "2: api.tokens_file: *t"),
        ("bus: {file: a.db}\nrelay: {history_file: a.db}", None),
        ("logger: {file: /dev/null}\nprobes: {}", None),
    ],
)
def test_each_file_that_is_written_is_a_file_of_its_own(
    file: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str | None
) -> None:
    folder = file.parent
    monkeypatch.setenv("STATE_DIRECTORY", str(folder))
    os.mkfifo(folder / "pipe")
    for name in ("folder", "x"):
        (folder / name).mkdir()
    (folder / "a.db").touch()
    (folder / "link.db").symlink_to("a.db")
    (folder / "hard.db").hardlink_to(folder / "a.db")
    file.write_text(text.replace("FOLDER", str(folder)))
    if problem is None:
        load(str(file))
        return
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    said = str(caught.value)
    if "not a file" not in problem:
        problem = f"{problem} is the file of *, too; choose another"
    assert re.fullmatch(f"{file}:{re.escape(problem)}".replace(r"\*", ".*"), said), said
    assert not caught.value.others
