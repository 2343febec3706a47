"""A kind of check is one module that knows its own keys, wherever its jobs come from."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitor.daemon.config import load
from monitor.daemon.shown_settings import settings_in_force
from monitor.errors import ConfigError, SettingError
from monitor.probes.checks import KINDS, read_job
from monitor.probes.checks.http import HttpJob
from monitor.probes.jobs_file import read_jobs
from monitor.probes.jobs_table import load_jobs, save_jobs
from monitor.probes.tls import TlsKeys
from monitor.store import Connection, DatabaseSettings
from tests.servers.daemon import ROOT
from tests.store.opened import opened

# Each kind has a URL of this form; the last of its schemes is the one with TLS.
URLS = {
    kind: f"{check.job.schemes[-1]}://x:1" for kind, check in KINDS.items() if check.job.schemes
}
URLS |= {"ping": "ping://x", "heartbeat": ""}
# Keys that not all kinds have, each with a value that is not its default.
KEYS: dict[str, Any] = {
    "method": "POST",
    "headers": {"X-One": "1"},
    "body": "text",
    "expected_status": [204],
    "body_regexp": "x",
    "follow_redirects": False,
    "max_redirects": 1,
    "max_body_bytes": 1,
    "proxy": "http://p:1",
    "http_version": "2",
    "verify_tls": False,
    "server_name": "y",
    "tls_min_version": "1.3",
}


def having(key: str) -> list[str]:
    """Return the kinds whose jobs have a key."""
    return [kind for kind, check in KINDS.items() if key in check.job.__struct_fields__]


def unknown(key: str, kind: str) -> str:
    return f"{key}: unknown key for kind {kind}; known by {', '.join(having(key))}"


REFUSED = [
    (kind, key, unknown(key, kind)) for kind in URLS for key in KEYS if kind not in having(key)
]


def raw(kind: str, key: str) -> dict[str, Any]:
    tls = {"tls": True} if kind == "tcp" and key in TlsKeys.__struct_fields__ else {}
    return {"id": 7, "kind": kind, "url": URLS[kind], **tls, key: KEYS[key]}


def test_every_kind_is_a_module_of_its_name_with_urls_of_its_own() -> None:
    schemes = [scheme for check in KINDS.values() for scheme in check.job.schemes]
    assert len(set(schemes)) == len(schemes)
    for kind, check in KINDS.items():
        assert check.job.__struct_config__.tag == kind
        assert {option.key for option in check.options} <= set(check.job.__struct_fields__)


@pytest.mark.parametrize(("kind", "key", "said"), REFUSED)
def test_a_kind_refuses_what_only_others_know(kind: str, key: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_job(raw(kind, key))
    assert str(caught.value) == said


def test_a_kind_takes_its_own_keys_and_http_is_the_default() -> None:
    for key, value in KEYS.items():
        for kind in having(key):
            assert getattr(read_job(raw(kind, key)), key) == value
    assert read_job({"id": 1, "url": "http://x/"}) == HttpJob(id=1, url="http://x/")


def test_a_config_names_file_line_key_and_the_kinds_that_know_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    lines = [
        "probes:",
        "  jobs:",
        "  - {id: 1, url: 'http://x/', body_regexp: x}",
        "  - {id: 2, kind: tcp, url: 'tcp://x:1', body_regexp: x}",
        "  - id: 3",
        "    kind: websocket",
        "    url: ws://x/",
        "    body_regexp: x",
    ]

    def problem(text: str) -> str:
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load(str(file))
        assert caught.value.exit_status == 78
        return str(caught.value).removeprefix(f"{file}:")

    assert problem("\n".join(lines)) == f"8: probes.jobs[2].{unknown('body_regexp', 'websocket')}"
    whole = "\n".join(lines[:-1])
    assert problem(f"{whole}\n    timeot: 1") == (
        "8: probes.jobs[2].timeot: unknown key; did you mean timeout?"
    )
    assert problem(f"{whole}\n    interval: 0") == (
        "8: probes.jobs[2].interval: expected a number, at least 0.1, not 0"
    )
    assert problem(whole.replace("websocket", "websoket")) == (
        "6: probes.jobs[2].kind: unknown kind 'websoket'; did you mean websocket?"
    )
    file.write_text(whole)
    shown = settings_in_force(load(str(file)).config)
    assert shown.count("kind: http") == shown.count("kind: tcp") == 1
    assert shown.count("body_regexp: x") == 2


@pytest.mark.parametrize(
    "key",
    ["name", "url", "body", "headers", "body_regexp", "ca_file", "interval", "active", "tags"],
)
@pytest.mark.parametrize("half", ["\ud800", "\udcff"])
def test_half_of_a_character_is_refused_wherever_it_is(tmp_path: Path, key: str, half: str) -> None:
    file = tmp_path / "jobs.json"
    value: Any = {"headers": {"X-One": half}, "url": f"http://x/{half}"}.get(key, half)
    bad = {"id": 2, "url": "http://x/", key: value}
    file.write_text(json.dumps([{"id": 1, "url": "http://x/"}, bad, {"id": 3, half: 1}]))
    found = read_jobs(file)
    assert [job.id for job in found.jobs] == [1]
    assert f"job 2: {key}" in found.refused[0]
    assert "half of a surrogate pair" in found.refused[0]
    assert len(found.refused) == 2
    assert all(line.isprintable() for line in found.refused)


def insert(connection: Connection, row: dict[str, Any]) -> None:
    columns, marks = ", ".join(row), ", ".join(["%s"] * len(row))
    connection.execute(
        f"INSERT INTO availability_monitor_config ({columns}) VALUES ({marks})",
        tuple(row.values()),
    )


async def test_a_row_may_hold_only_the_defaults_of_columns_that_its_kind_has_no_key_for(
    scratch: DatabaseSettings,
) -> None:
    websocket = {"amc_url": "ws://x/", "amc_options": '{"kind": "websocket"}'}
    options = '{"kind": "tcp", "headers": {"a": "b"}}'
    rows: list[dict[str, Any]] = [
        {"amc_id": 1, **websocket, "amc_method": "GET", "amc_regexp": None},
        {"amc_id": 2, **websocket, "amc_method": "POST"},
        {"amc_id": 3, **websocket, "amc_regexp": "x"},
        {"amc_id": 4, **websocket, "amc_expected_status": "[204]"},
        {"amc_id": 5, "amc_url": "tcp://x:1", "amc_options": options},
    ]

    async with opened(scratch) as store:
        for row in rows:
            await store.transaction(partial(insert, row=row))
        found = await store.read(load_jobs)
        assert [job.id for job in found.jobs] == [1]
        assert list(found.refused) == [
            f"availability_monitor_config: job {problem}"
            for problem in (
                f"2: {unknown('method', 'websocket')}",
                f"3: {unknown('body_regexp', 'websocket')}",
                f"4: {unknown('expected_status', 'websocket')}",
                f"5: {unknown('headers', 'tcp')}",
            )
        ]
        for kind, url in URLS.items():
            job = read_job({"id": 1, "kind": kind, "url": url, "interval": 3})
            await store.transaction(partial(save_jobs, jobs=[job]))
            assert (await store.read(load_jobs)).jobs == (job,)


def test_the_raw_form_of_a_job_reads_as_the_job() -> None:
    for kind, url in URLS.items():
        job = read_job({"id": 1, "kind": kind, "url": url})
        assert read_job(msgspec.to_builtins(job)) == job


@pytest.mark.integration_test
def test_reading_a_config_imports_no_library_of_a_kind() -> None:
    program = (
        "import sys, monitor.daemon.config\n"
        "print({'pycurl', 'websockets', 'fastapi'} & set(sys.modules))"
    )
    done = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert done == "set()\n"


@pytest.mark.integration_test
def test_the_kind_of_the_contributors_page_is_one_module(tmp_path: Path) -> None:
    page = (ROOT / "docs/contributing/check-kind.md").read_text()
    (module,) = [fence for fence in page.split("```python\n") if "class FingerCheck" in fence]
    for folder in ("monitor", "packaging/man"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    added = tmp_path / "monitor/probes/checks/finger.py"
    added.write_text(textwrap.dedent(module.partition("```")[0]))
    config = tmp_path / "config.yml"

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    job = "{id: 1, kind: %s, url: '%s://127.0.0.1:79', user: somebody}"
    config.write_text(f"probes: {{jobs: [{job % ('finger', 'finger')}]}}")
    checked = python("-m", "monitor", "check-config", "-c", "config.yml")
    assert "user: somebody" in checked.stdout, checked.stderr
    config.write_text(f"probes: {{jobs: [{job % ('tcp', 'tcp')}]}}")
    refused = python("-m", "monitor", "check-config", "-c", "config.yml")
    assert refused.returncode == 78
    assert "unknown key for kind tcp; known by finger" in refused.stderr
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            with server.accept()[0] as peer:
                peer.recv(100)
                peer.sendall(b"finger: nobody: no such user.\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        url = f"finger://127.0.0.1:{server.getsockname()[1]}"
        down = python("-m", "monitor", "probe", url, "--user", "nobody", "--json")
    assert down.returncode == 1, down.stderr
    assert json.loads(down.stdout)["error"] == "no-such-user: nobody"
    words = "from monitor.probes.checks import error_words; print(error_words()['no-such-user'])"
    assert "does not know the user" in python("-c", words).stdout
    described = python("packaging/man/config-page").stdout
    assert "With kind finger, also:" in described
    assert "The user to ask for." in described
