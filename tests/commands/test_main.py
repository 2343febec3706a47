"""The command line: one line for each mistake, and the exit status that goes with it."""

from __future__ import annotations

import errno
import http.server
import re
import threading
from pathlib import Path

import pytest
import trustme

from monitor import __version__
from monitor.commands import COMMANDS
from monitor.main import main
from monitor.probes.checks import KINDS
from monitor.probes.tls import TLS_OPTIONS
from tests.commands.programs import run


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["folow"], 2, "unknown command 'folow'; did you mean follow?"),
        (["nonsense"], 2, "unknown command 'nonsense'; see recodex-monitor --help"),
        (["--nonsense"], 2, "--nonsense"),
        (["follow"], 2, "channel"),
        (["follow", "c", "--expect", "0"], 2, "--expect: expected at least 1 task"),
        (
            ["follow", "c", "--url", "http://x/"],
            2,
            "--url: http://x/ is not ws://HOST:PORT or wss://HOST:PORT",
        ),
        (["check-config"], 2, "-c"),
        (["-c", ""], 78, "the name of the config file is empty"),
        (["check-config", "-c", ""], 78, "the name of the config file is empty"),
        (["play", "/nowhere"], 1, "cannot read /nowhere: No such file"),
        (["play", "--uri", "nonsense"], 2, "--uri: nonsense is not tcp://HOST:PORT"),
        (["play", "--uri", "tcp://127.0.0.1:99999"], 2, "--uri: tcp://127.0.0.1:99999 is not tcp"),
        (["play", "--wait", "nan"], 2, "--wait: 'nan' is not a number of seconds"),
        (["play", "--wait", "inf"], 2, "--wait: 'inf' is not a number of seconds"),
        (["play", "--channel", "c" * 4097], 2, "longer than 4096 bytes"),
        (["follow", "c", "--wait", "-1"], 2, "--wait"),
        (["follow", "c", "--wait=-1"], 2, "--wait: '-1' is not a number of seconds"),
        (["follow", "c", "--wait", "nan"], 2, "--wait: 'nan' is not a number of seconds"),
        (["follow", "c", "--url", "ws://127.0.0.1:99999/"], 2, "is not ws://HOST:PORT"),
        (["follow", "c", "--url", "ws://[::1/"], 2, "is not ws://HOST:PORT"),
        (["follow", "c", "--url", "ws://a..b/"], 2, "is not ws://HOST:PORT"),
        (["follow", "é" * 2049], 2, "longer than 4096 bytes"),
        (["follow", "\udcff"], 2, "the name of the channel is not UTF-8 text"),
        (["logs", "--sender", "\udcff"], 2, r"--sender: '\udcff' is not UTF-8 text"),
        (["logs", "--contains", "a\udcff"], 2, "is not UTF-8 text"),
        (["token", "create", "\udcff", "--role", "admin"], 2, "is not UTF-8 text"),
        (["logs", "--api", "http://127.0.0.1:99999"], 2, "--api: http://127.0.0.1:99999 is not"),
        (["job", "list", "--api", "http://[::1"], 2, "is not http://HOST:PORT"),
        (["logs", "--api", ""], 2, "--api: an empty text is not http://HOST:PORT"),
        (["job", "list", "--api", ""], 2, "--api: an empty text is not http://HOST:PORT"),
        (["follow", "c", "--url", ""], 2, "--url: an empty text is not ws://HOST:PORT"),
        (
            ["logs", "--level", "foo"],
            2,
            "--level: expected one of debug, info, warning, error, critical, not 'foo'",
        ),
        (
            ["logs", "--min-level", "9" * 5000],
            2,
            "--min-level: expected one of debug, info, warning, error",
        ),
        (["logs", "--level", "25"], 2, "critical, not '25'"),
        (["probe", "http://x/", "-4", "-6"], 2, "-6"),
        (
            ["probe", "tcp://x:1", "--method", "GET"],
            2,
            "--method: unknown option for kind tcp; known by http",
        ),
        (["probe", "tcp://x:1", "--status", "200"], 2, "--status: unknown option"),
        (["probe", "ping://x", "--insecure"], 2, "--insecure: unknown option"),
        (["probe", "ws://x/", "--regexp", "a"], 2, "--regexp: unknown option"),
        (["logs", "--timewindow", "1h"], 2, "--timewindow: '1h' is not a number, without a unit"),
        (["alerts", "silence", "--job", "x"], 2, "--job: 'x' is not a whole number"),
        (["alerts", "silence", "--for", "0"], 2, "--for: expected a number of seconds above 0"),
        (["alerts", "silence", "--for", "inf"], 2, "--for: expected a number of seconds above 0"),
        (["alerts", "silence", "--until", "2020-01-01"], 2, "--until: 2020-01-01 is in the past"),
        (["alerts", "list", "--limit", "-5"], 2, "--limit: expected at least 1"),
        (["play", "--server-key", "short"], 2, "--server-key: not a CURVE key: expected 40"),
        (["play", "--server-key", "é" * 20], 2, "--server-key: not a CURVE key: expected 40"),
        (["play", "--speed", "0"], 2, "--speed: expected a number above 0"),
    ],
)
def test_mistakes_get_a_line_and_a_status(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.startswith("recodex-monitor: ")
    assert said in error


@pytest.mark.parametrize("token", ["a\nX-Header: b", "a b", "ü"])
def test_a_token_that_is_none_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    monkeypatch.setenv("RECODEX_MONITOR_TOKEN", token)
    assert main(["logs", "--api", "http://127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("recodex-monitor: RECODEX_MONITOR_TOKEN: a token has no spaces")
    assert token not in error


@pytest.mark.parametrize("arguments", [["logs"], ["logs", "--follow", "--wait", "0"]])
def test_tls_to_a_port_without_it_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    handler = http.server.BaseHTTPRequestHandler
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            assert main([*arguments, "--api", f"https://127.0.0.1:{server.server_port}"]) == 75
        finally:
            server.shutdown()
            thread.join()
    assert "TLS failed" in capsys.readouterr().err.splitlines()[-1]


def test_a_host_that_is_not_known_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "--api", "http://host.invalid:9000"]) == 75
    assert "the name of the host is not known" in capsys.readouterr().err


def test_token_create_says_what_to_do_where_the_directory_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, missing = tmp_path / "config.yml", tmp_path / "etc"
    file.write_text(f"api: {{tokens_file: {missing}/tokens.yml}}")
    assert main(["token", "create", "a", "--role", "admin", "-c", str(file)]) == 1
    assert capsys.readouterr().err == (
        f"recodex-monitor: {missing}/tokens.yml: there is no directory {missing}; create it, or"
        " use -c FILE with a config whose api.tokens_file is elsewhere\n"
    )


def test_options_may_stand_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, tokens = tmp_path / "config.yml", tmp_path / "tokens.yml"
    file.write_text(f"api: {{tokens_file: {tokens}}}")
    config = ["-c", str(file)]
    assert main(["token", "create", "--role", "reader", *config, "first"]) == 0
    assert main(["token", *config, "create", "--role", "reader", "--", "-second"]) == 0
    assert main([*config, "token", "create", "--role", "reader", "--", "third"]) == 0
    capsys.readouterr()
    assert main(["token", "create", "first", "--role", "reader", *config, "a\nb"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        r"recodex-monitor: unrecognized arguments: a\nb; see recodex-monitor token --help"
    ]
    assert re.findall(r"name: (\S+)", tokens.read_text()) == ["first", "-second", "third"]


@pytest.mark.integration_test
def test_topic_without_a_spool_says_where_the_daemon_may_have_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    for spool, hinted in (("spool.db", True), (f"{tmp_path}/spool.db", False)):
        file.write_text(f"bus: {{file: {spool}}}")
        done = run("topic", "website_availability", "-c", str(file), STATE_DIRECTORY=str(tmp_path))
        assert done.returncode == 1
        assert done.stderr.startswith(f"recodex-monitor: there is no spool {tmp_path}/spool.db; ")
        assert done.stderr.count("\n") == 1
        assert ("STATE_DIRECTORY" in done.stderr) == hinted


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"recodex-monitor {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {re.escape(name)} ", shown, re.M) for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"recodex-monitor {command}" in capsys.readouterr().out


def test_check_config_names_what_the_parts_find_with_all_other_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yml"
    probes = f"probes: {{source: file, jobs_file: {tmp_path}/jobs.yml}}\n"
    file.write_text(
        "api: {uri: [0.0.0.0, 9000]}\n" + probes + "database: {fil: x}\nlogs: {timewindow: x}\n"
    )
    assert main(["check-config", "-c", str(file)]) == 78
    keys = [line.split(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert keys == ["api.uri", "probes.jobs_file", "database.fil", "logs.timewindow"]
    # What is wrong elsewhere in a section says nothing about tokens.
    file.write_text("api: {uri: [0.0.0.0, 9000], token_file: x}\n")
    assert main(["check-config", "-c", str(file)]) == 78
    assert "unknown key" in capsys.readouterr().err.splitlines().pop(0)
    (tmp_path / "jobs.yml").write_text("- {id: 1, url: 'htp://x'}\n")
    file.write_text(probes)
    assert main(["check-config", "-c", str(file)]) == 0
    assert "job left out: " in capsys.readouterr().err


def test_the_config_may_stand_before_or_after_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yml"
    file.write_text("relay: {keep_idle: 12}")
    for arguments in (["-c", str(file), "check-config"], ["check-config", "-c", str(file)]):
        assert main(arguments) == 0
        assert "keep_idle: 12" in capsys.readouterr().out


@pytest.mark.parametrize("failure", [KeyError("a\nb"), OSError(errno.EPERM, "not you")], ids=repr)
def test_an_error_that_nobody_expected_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Exception
) -> None:
    def broken(_: list[str]) -> int:
        raise failure

    monkeypatch.setattr("monitor.commands.command_line.run", broken)
    assert main(["status"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("recodex-monitor: internal error: ")
    assert type(failure).__name__ in line
    assert "(test_main.py, line " in line


# With a relay


PROBED = {
    "dns": "dns://127.0.0.1:1/example.org",
    "grpc": "grpcs://127.0.0.1:1/",
    "http": "https://127.0.0.1:1/",
    "ping": "ping://127.0.0.1",
    "tcp": "tcp://127.0.0.1:1",
    "tls": "tls://127.0.0.1:1",
    "websocket": "wss://127.0.0.1:1/",
}
# Values for the options that do not take any text.
VALUES = {
    "--count": "2",
    "--rcode": "REFUSED",
    "--status": "200-299",
    "--starttls": "smtp",
    "--method": "HEAD",
}


@pytest.mark.integration_test
@pytest.mark.parametrize(
    ("kind", "flag"), [(kind, each.flag) for kind in PROBED for each in KINDS[kind].options]
)
def test_every_option_of_probe_is_taken(
    tmp_path: Path, kind: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    option = next(each for each in KINDS[kind].options if each.flag == flag)
    value = VALUES.get(flag, "x")
    if option.metavar == "FILE":
        value = str(tmp_path / "authorities.pem")
        trustme.CA().cert_pem.write_to_path(value)
    given = [flag] if option.metavar is None else [flag, value]
    # With --tls the certificate has a name.
    more = ["--tls"] if kind == "tcp" and option in TLS_OPTIONS else []
    assert main(["probe", PROBED[kind], *given, *more]) in (0, 1)
    assert PROBED[kind] in capsys.readouterr().out


def test_each_kind_that_has_a_url_is_probed() -> None:
    assert set(PROBED) == set(KINDS) - {"heartbeat"}
