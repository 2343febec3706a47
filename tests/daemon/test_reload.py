"""Every key of the config is adopted by a reload, or the log names it as waiting for a restart."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import http.client
import inspect
import json
import logging
import re
import resource
import shutil
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
import yaml
import zmq.auth
from msgspec.inspect import Metadata, StructType, Type, UnionType

from monitor.aggregation.part import Aggregation
from monitor.alerts.part import Alerts
from monitor.alerts.settings import Rule
from monitor.cluster.part import Cluster
from monitor.daemon.config import Config, load
from monitor.daemon.lifecycle import Daemon
from monitor.daemon.logfile import DaemonLog
from monitor.logs.part import Logs
from monitor.probes.checks import KINDS
from monitor.probes.part import Probes
from monitor.relay.part import Relay
from monitor.relay.router_receiver import RouterReceiver
from monitor.settings import Section, is_marked
from monitor.tokens import Role, create_token
from monitor.transport.router import Router
from monitor.web.part import Web
from tests.ports import free_port
from tests.waiting import until

WAITING = "changed but not applied; restart to apply: "
# A job of each kind in the config; each key of a kind is changed there.
JOBS: dict[str, dict[str, Any]] = {
    kind: {
        "id": number,
        "kind": kind,
        # Over TLS where there is a choice: without it, its keys are refused.
        "url": f"{check.job.schemes[-1]}://127.0.0.1{'' if kind == 'ping' else ':9'}"
        if check.job.schemes
        else "",
        "interval": 86400,
        **({"tls": True} if kind == "tcp" else {}),
    }
    for number, (kind, check) in enumerate(KINDS.items(), 1)
}


# A heartbeat refuses what is about asking a site.
OF_NO_HEARTBEAT = {
    f"probes.jobs.heartbeat/{key}"
    for key in ("url", "timeout", "retries", "ip_version", "degraded_after")
}

# What rules of alerts watch; one of each is in the config.
WATCHES = tuple(str(kind.__struct_config__.tag) for kind in Rule.__subclasses__())


# Every rule of alerts has these keys; they are changed on the first one.
INHERITED = re.compile(
    rf"alerts\.rules\.(?!{WATCHES[0]}/)\w+/(name|match|receivers|repeat|resolved)"
)


Key = tuple[str, Type, bool]


class Running:
    """The daemon, and its parts by what they are."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        self.relay = self._part(Relay)
        self.probes = self._part(Probes)
        self.aggregation = self._part(Aggregation)
        self.cluster = self._part(Cluster)
        self.logs = self._part(Logs)
        self.alerts = self._part(Alerts)
        self.web = self._part(Web)

    def _part(self, kind: type) -> Any:
        return next((part for part in self.daemon.parts if isinstance(part, kind)), None)

    async def reload(self, config: Mapping[str, Any]) -> None:
        """Give the daemon another config, which it must take."""
        (self.folder / "config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
        await self.daemon.reload()


def custom_kind(name: str) -> dict[str, Any]:
    """Return the description of a custom resource."""
    plural = f"{name.lower()}s"
    resource = {"kind": name, "group": "example.org", "version": "v1", "plural": plural}
    return {**resource, "model_version": "spec.version"}


def config(folder: Path) -> dict[str, Any]:
    """Return a config with every section, and make the files that it names, and others.

    A section without an entry here is on with its defaults.
    """
    authority = trustme.CA()
    for name in ("one", "two"):
        issued = authority.issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
        shutil.copy(folder / f"{name}.pem", folder / f"{name}-key.pem")
        (folder / name).mkdir()
        zmq.auth.create_certificates(folder / name, "broker")
        zmq.auth.create_certificates(folder, f"relay-{name}")
        cluster = {"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}]}
        context = {"contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}
        (folder / f"kubeconfig-{name}").write_text(json.dumps(cluster | context))
        (folder / f"jobs-{name}.json").write_text(json.dumps([JOBS["http"]]))
    (folder / "password").write_text("secret")
    for name in ("one", "two"):
        (folder / f"{name}.urls").write_text("json://127.0.0.1:9\n")
    (folder / "tokens-one.yml").write_text("tokens: []")
    create_token(folder / "tokens-two.yml", "somebody", Role.ADMIN)
    anywhere = ["127.0.0.1", 0]
    certificate = {"certificate": f"{folder}/one.pem", "key": f"{folder}/one-key.pem"}
    curve = {
        "secret_key_file": f"{folder}/relay-one.key_secret",
        "public_keys_dir": f"{folder}/one",
    }
    sections: dict[str, Any] = {key: {} for key in Config.__struct_fields__}
    return sections | {
        "websocket_uri": anywhere,
        "zeromq_uri": anywhere,
        "logger": {"file": f"{folder}/monitor.log"},
        "relay": {
            "tls": dict(certificate),
            "curve": dict(curve),
        },
        "cluster": {
            "kubeconfig": f"{folder}/kubeconfig-one",
            "custom_kinds": [custom_kind("Model"), custom_kind("Batch")],
        },
        "kafka": {"bootstrap_servers": [f"127.0.0.1:{free_port()}"]},
        "probes": {"jobs": [*JOBS.values(), {"id": 1000, "url": "http://127.0.0.1:9"}]},
        "aggregation": {"fields": [{"field": "phases.tls", "functions": ["max"]}]},
        "logs": {"zeromq_uri": anywhere, "curve": dict(curve)},
        "alerts": {
            # Each key of a receiver is changed on the first one.
            "receivers": [{"name": "one", "urls_file": f"{folder}/one.urls"}],
            "rules": [{"name": watch, "watch": watch} for watch in WATCHES],
            "maintenance": [{"name": "one"}],
        },
        "api": {
            "uri": anywhere,
            "tokens_file": f"{folder}/tokens-one.yml",
            "tls": {**certificate, "client_ca": None},
            "status_page": {"match": {"tags": ["one", "two"]}},
        },
    }


# Other values of keys that not every value fits; where a key must not change alone, with those
# that change with it. FOLDER stands for the test's.
OTHERS: dict[str, Any] = {
    "logger.level": "debug",
    "logger.file": "FOLDER/other.log",
    "database.url": "postgresql://monitor@127.0.0.1:1/monitoring",
    "database.password_file": "FOLDER/password",
    "relay.origins": ["https://example.org"],
    "aggregation.fields": [{"field": "duration", "functions": ["avg"]}],
    "aggregation.fields.field": "phases.connect",
    "aggregation.fields.functions": ["p95"],
    "probes.location": "brno",
    "probes.quorum": {"quorum": 2, "location": "brno"},
    "relay.trusted_proxies": ["10.0.0.0/8"],
    "api.trusted_proxies": ["10.0.0.0/8"],
    "api.root_path": "/monitor",
    "relay.tls.certificate": {"certificate": "FOLDER/two.pem", "key": "FOLDER/two-key.pem"},
    "relay.tls.key": {"certificate": "FOLDER/two.pem", "key": "FOLDER/two-key.pem"},
    "relay.curve.secret_key_file": "FOLDER/relay-two.key_secret",
    "relay.curve.public_keys_dir": "FOLDER/two",
    "logs.curve.secret_key_file": "FOLDER/relay-two.key_secret",
    "logs.curve.public_keys_dir": "FOLDER/two",
    "api.tls.certificate": {"certificate": "FOLDER/two.pem", "key": "FOLDER/two-key.pem"},
    "api.tls.key": {"certificate": "FOLDER/two.pem", "key": "FOLDER/two-key.pem"},
    "api.tls.client_ca": "FOLDER/one.pem",
    "kafka.bootstrap_servers": ["127.0.0.1:1"],
    "kafka.security_protocol": "SSL",
    "kafka.ssl_cafile": "FOLDER/one.pem",
    "kafka.ssl_certfile": "FOLDER/one.pem",
    "kafka.ssl_keyfile": "FOLDER/one.pem",
    "kafka.sasl_plain_password_file": "FOLDER/password",
    "kafka.sasl_oauthbearer_token_file": "FOLDER/password",
    "kafka.sasl_oauthbearer_client_secret_file": "FOLDER/password",
    "cluster.namespaces": ["models"],
    "cluster.kubeconfig": "FOLDER/kubeconfig-two",
    "cluster.mapping.group": "label:app",
    "cluster.mapping.model": ["name"],
    "cluster.mapping.version": ["image-tag"],
    "probes.source": {"source": "file", "jobs_file": "FOLDER/jobs-one.json"},
    "probes.jobs_file": {"source": "file", "jobs_file": "FOLDER/jobs-two.json"},
    "probes.websites_per_container": {"websites_per_container": 2, "id": 1},
    "probes.id": {"id": 2, "websites_per_container": 2},
    "probes.jobs": [],
    "probes.jobs.http/method": "HEAD",
    "probes.jobs.http/expected_status": [204],
    "probes.jobs.*/tags": ["production"],
    "probes.jobs.*/depends_on": [1000],
    "probes.jobs.*/headers": {"accept": "*/*"},
    "probes.jobs.*/proxy": "http://127.0.0.1:9",
    "probes.jobs.http/header_regexps": {"server": "nginx"},
    "probes.jobs.*/dialogue": [{"send": "QUIT\r\n"}],
    "probes.jobs.*/server_name": "localhost",
    "probes.jobs.tcp/starttls": {"starttls": "smtp", "tls": False},
    "probes.jobs.dns/expected": ["x"],
    "probes.jobs.dns/expected_rcode": "NXDOMAIN",
    "probes.jobs.*/ca_file": "FOLDER/one.pem",
    "probes.jobs.*/client_certificate": "FOLDER/one.pem",
    "probes.jobs.*/client_key": {
        "client_certificate": "FOLDER/one.pem",
        "client_key": "FOLDER/one-key.pem",
    },
    "alerts.receivers": [],
    "alerts.receivers.urls_file": "FOLDER/two.urls",
    "alerts.receivers.webhook": {"webhook": "http://127.0.0.1:9", "urls_file": None},
    "alerts.receivers.secret_file": {
        "secret_file": "FOLDER/password",
        "webhook": "http://127.0.0.1:9",
        "urls_file": None,
    },
    "alerts.receivers.alertmanager": {"alertmanager": ["http://127.0.0.1:9"], "urls_file": None},
    "alerts.rules": [],
    "alerts.rules.*/receivers": ["one"],
    "alerts.rules.*/repeat": 60,
    "alerts.rules.*/match.tags": ["one"],
    "alerts.rules.*/match.jobs": [1],
    "alerts.maintenance": [],
    "alerts.maintenance.days": ["mon"],
    "alerts.maintenance.from": "12:00",
    "alerts.maintenance.until": "12:00",
    "alerts.maintenance.time_zone": "Europe/Prague",
    "alerts.maintenance.match.tags": ["one"],
    "alerts.maintenance.match.jobs": [1],
    "alerts.page": "http://127.0.0.1:9/",
    "alerts.keep_incidents": 86400,
    "api.tokens_file": "FOLDER/tokens-two.yml",
    "api.origins": ["https://example.org"],
}


def log_file(now: Running) -> Any:
    """Return the handler that writes the log's file."""
    return now.daemon._log._file._handler


async def served_certificate(now: Running) -> str:
    """Return the file whose certificate a new client of the relay gets."""
    return await certificate_at(now, now.relay.server.addresses[0])


def unverified() -> ssl.SSLContext:
    """Return a client's TLS context that accepts every certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def certificate_at(now: Running, address: tuple[str, int]) -> str:
    """Return the file whose certificate is served at an address."""
    host, port = address
    _, writer = await asyncio.open_connection(host, port, ssl=unverified())
    served = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    files = [now.folder / "one.pem", now.folder / "two.pem"]
    pem = ssl.DER_cert_to_PEM_cert(served)
    return next(str(file) for file in files if pem in file.read_text())


async def served_key(now: Running) -> str:
    """Return the file whose key a new client of the relay is served with."""
    return (await served_certificate(now)).replace(".pem", "-key.pem")


def allowed_brokers(now: Running) -> str:
    """Return the directory of the keys that may connect."""
    receiver = now.relay.receiver
    assert isinstance(receiver, RouterReceiver)
    return folder_of(now, receiver._router)


def folder_of(now: Running, router: Router) -> str:
    """Return the directory of the keys that may connect to a socket."""
    allowed = router._allowed.keys
    folders = [now.folder / "one", now.folder / "two"]
    return next(str(each) for each in folders if zmq.auth.load_certificates(each).keys() == allowed)


def running_jobs(now: Running) -> Any:
    """Return the jobs as they are checked, and those that are not to be."""
    listed, runner = now.probes.jobs.jobs, now.probes.runner
    return [runner.job_status(job.id).job if job.active else job for job in listed]


async def watched(now: Running) -> Any:
    """Return what the cluster is watched by, once the watches are those of the config."""
    section = now.daemon.config.cluster
    with contextlib.suppress(TimeoutError):
        await until(lambda: now.cluster._session and now.cluster._session._settings == section)
    return now.cluster._session._settings


async def watched_custom_kinds(now: Running) -> Any:
    """Return the custom resources that are watched."""
    return (await watched(now)).custom_kinds


async def largest_body(now: Running) -> int:
    """Return the limit that a request learns of."""
    host, port = now.web.addresses[0]

    def ask() -> str:
        client = http.client.HTTPSConnection(host, port, timeout=60, context=unverified())
        with contextlib.closing(client):
            client.putrequest("POST", "/job")
            client.putheader("content-length", str(2**50))
            client.endheaders()
            return str(json.loads(client.getresponse().read())["detail"])

    return int((await asyncio.to_thread(ask)).split()[-2])


def stall_of_web(now: Running) -> float:
    """Return how long a client of the API may take nothing, here and in the kernel."""
    stall: float = now.web._connections.settings.client_stall
    for listener in now.web._listeners:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == stall * 1000
    return stall


async def key_of_api(now: Running) -> str:
    """Return the file whose key a new client of the API is served with."""
    return (await certificate_at(now, now.web.addresses[0])).replace(".pem", "-key.pem")


def authority_of_clients(now: Running) -> str | None:
    """Return the file whose authorities sign what clients of the API need."""
    assert now.web._tls is not None
    newest = now.web._tls._newest
    assert now.web._tls.served.verify_mode == newest.verify_mode
    needed = newest.verify_mode is ssl.CERT_REQUIRED and newest.cert_store_stats()["x509"]
    return f"{now.folder}/one.pem" if needed else None


See = Callable[[Running], Any]


def under(section: str, found: Mapping[str, See]) -> dict[str, See]:
    return {f"{section}.{name}": see for name, see in found.items()}


# How the value in force of each key is seen that a reload takes. The entry of a section or a list
# is for all keys in it that have no entry of their own. A key without any fails the test.
SEEN: dict[str, See] = {
    "relay": lambda now: now.relay.channels.limits,
    **under(
        "relay",
        {
            "allow_remote_exit": lambda now: now.relay._settings.allow_remote_exit,
            "tls.certificate": served_certificate,
            "tls.key": served_key,
            "curve.public_keys_dir": allowed_brokers,
        },
    ),
    **under(
        "logger",
        {
            "file": lambda now: log_file(now).baseFilename,
            "level": lambda now: logging.getLevelName(logging.getLogger("monitor").level).lower(),
            "max-size": lambda now: log_file(now).maxBytes,
            "rotations": lambda now: log_file(now).backupCount,
        },
    ),
    **under(
        "probes",
        {
            "source": lambda now: now.probes.source,
            "jobs_file": lambda now: str(now.probes._source._file),
            # As the producer of the first range.
            "websites_per_container": lambda now: len(now.probes.runner.job_ids()),
            "id": lambda now: now.probes.runner.producer,
            "location": lambda now: now.probes.runner.location,
            "quorum": lambda now: now.probes.runner.quorum,
            "concurrency": lambda now: now.probes.runner._slots.limit,
            "jobs": running_jobs,
        },
    ),
    "aggregation": lambda now: now.aggregation._settings,
    "cluster": watched,
    "cluster.custom_kinds": watched_custom_kinds,
    "logs": lambda now: now.logs.service.settings,
    "alerts": lambda now: now.alerts._settings,
    "logs.curve.public_keys_dir": lambda now: folder_of(now, now.logs.zeromq._router),
    "logs.max_pending_bytes": lambda now: now.logs.service.committer.max_pending_bytes,
    "api": lambda now: now.web._connections.settings,
    **under(
        "api",
        {
            "tokens_file": lambda now: str(now.daemon._services.tokens.file),
            "origins": lambda now: list(now.web._access.origins),
            "tls.certificate": lambda now: certificate_at(now, now.web.addresses[0]),
            "tls.key": key_of_api,
            "tls.client_ca": authority_of_clients,
            "trusted_proxies": lambda now: now.web._connections.settings.trusted_proxies,
            "max_body_bytes": largest_body,
            "client_stall": stall_of_web,
        },
    ),
}


def keys(kind: Type, path: str = "", *, marked: bool = False) -> Iterator[Key]:
    """Yield every key below a type, what it takes, and whether it says that a reload takes it.

    A section that may be absent is a key too. Keys of a kind of job are probes.jobs.KIND/KEY
    where each kind has keys of its own.
    """
    for option in options(kind):
        if isinstance(option, StructType):
            below = path if option.tag is None else f"{path.rstrip('.')}.{option.tag}/"
            for field in option.fields:
                key, takes = f"{below}{field.encode_name}", field.type
                always = any(isinstance(each, StructType) for each in options(takes)) and not any(
                    isinstance(each, msgspec.inspect.NoneType) for each in options(takes)
                )
                reload = marked or is_marked(takes, "reload")
                if not always and key not in OF_NO_HEARTBEAT:
                    yield key, takes, reload
                yield from keys(takes, f"{key}.", marked=reload)
        # The steps of a dialogue change with it.
        elif "/" not in path and (item := getattr(option, "item_type", None)):
            yield from keys(item, path, marked=marked)


def options(kind: Type) -> tuple[Type, ...]:
    """Return what a value may be."""
    if isinstance(kind, Metadata):
        return options(kind.type)
    if isinstance(kind, UnionType):
        return tuple(option for each in kind.types for option in options(each))
    return (kind,)


def another(key: str, kind: Type, value: Any, folder: Path) -> Any:
    """Return a valid value of a key that is not ``value``, as YAML has it."""
    inspect_ = msgspec.inspect
    for name in (key, re.sub(r"\w+/", "*/", key)):
        if name in OTHERS:
            return json.loads(json.dumps(OTHERS[name]).replace("FOLDER", str(folder)))
    if key.endswith("/url"):
        return f"{value}9"
    if key.endswith("/id"):
        return value + 100
    for option in options(kind):
        match option:
            case inspect_.StructType():
                return None
            case inspect_.BoolType():
                return not value
            case inspect_.IntType() | inspect_.FloatType():
                more = (value if value is not None else option.ge or 0) + 1
                return more if option.le is None or more <= option.le else more - 2
            case inspect_.LiteralType():
                return next(each for each in option.values if each != value)
            case inspect_.StrType():
                return f"{value or ''}x"
            case inspect_.ListType() | inspect_.VarTupleType() if len(value) > 1:
                return msgspec.to_builtins(value[:-1])
            case inspect_.TupleType():
                return ["127.0.0.1", free_port()]
    raise AssertionError(f"{key} needs another value in OTHERS")


def rounds(found: Iterable[Key]) -> Iterator[list[Key]]:
    """Yield the keys that change together: one of each section, and one of each kind of job."""
    queues: dict[str, deque[Key]] = {}
    for key in found:
        kind = re.match(r"probes\.jobs\.\w+(?=/)", key[0])
        queues.setdefault(kind[0] if kind else key[0].partition(".")[0], deque()).append(key)
    while any(queues.values()):
        # The section's own keys decide which jobs there are, so they change without the jobs'.
        alone = bool(queues["probes"])
        yield [
            queue.popleft()
            for name, queue in queues.items()
            if queue and not (alone and name.startswith("probes."))
        ]


def change(changed: dict[str, Any], running: Config, key: str, kind: Type, folder: Path) -> None:
    """Put another value of ``key`` into a config."""
    value = msgspec.to_builtins(running)
    node: Any = changed
    *path, last = key.split(".")
    for place, step in enumerate(path):
        name = step.rpartition("/")[2]
        node, value = node.setdefault(name, {}), value[name]
        if isinstance(node, list):
            tag, slash, _ = [*path, last][place + 1].rpartition("/")
            tags = [each.get("kind", each.get("watch")) for each in node]
            index = tags.index(tag) if slash else 0
            node, value = node[index], value[index]
    last = last.rpartition("/")[2]
    other = another(key, kind, value.get(last), folder)
    # Of a section that may be absent: it is there now.
    other = False if other is None and not path else other
    changes = other if isinstance(other, dict) and last in other else {last: other}
    assert changes[last] != value.get(last), f"{key} is not changed"
    node.update(changes)


def in_config(config: Section, key: str) -> Any:
    """Return a key's value in a config."""
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name.replace("-", "_"))
    return found


def named(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Return the keys that the log said to wait for a restart."""
    said = [line.partition(WAITING)[2] for line in caplog.messages if WAITING in line]
    return {key for line in said for key in line.split(", ")}


@contextlib.asynccontextmanager
async def running(folder: Path, config: Mapping[str, Any]) -> AsyncIterator[Running]:
    """Run a daemon in this process."""
    file = folder / "config.yml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    loaded = load(str(file))
    log = DaemonLog(loaded.config.logger)
    log.start()
    try:
        daemon = Daemon(str(file), loaded, log)
        life = asyncio.create_task(daemon.run())
        await until(lambda: daemon.ready or life.done())
        try:
            yield Running(daemon, folder)
        finally:
            daemon._services.stop("the test is over")
            assert await life == 0
    finally:
        log.stop()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    for variable in ("LOGS_TIMEWINDOW", "CLEANUP_INTERVAL"):
        monkeypatch.delenv(variable, raising=False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.integration_test
@pytest.mark.timeout(600)
async def test_every_key_is_adopted_by_a_reload_or_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = config(tmp_path)
    wrong: list[str] = []

    async with running(tmp_path, base) as now:
        start = now.daemon.config
        found = keys(msgspec.inspect.type_info(Config))
        for together in rounds(key for key in found if not INHERITED.match(key[0])):
            caplog.clear()
            changed = copy.deepcopy(base)
            for key, kind, _ in together:
                change(changed, start, key, kind, tmp_path)
            await now.reload(changed)
            assert now.daemon.last_reload_successful, (together, caplog.messages[-1])
            waiting = named(caplog)
            expected = {key for key, _, marked in together if not marked}
            if waiting != expected:
                wrong.append(f"the log names {waiting}, and these are not marked: {expected}")
            for key in {key for key, _, marked in together if marked} - waiting:
                wrong += [said async for said in not_adopted(now, key)]
        caplog.clear()
        await now.reload(base)
        assert named(caplog) == set()
        assert now.daemon.config == start
    assert wrong == []


async def not_adopted(now: Running, key: str) -> AsyncIterator[str]:
    """Yield what is wrong with the value in force of a key that is marked."""
    seen = key.replace("/", ".")
    while seen not in SEEN and "." in seen:
        seen = seen.rpartition(".")[0]
    if seen not in SEEN:
        yield f"{key} is marked, and nothing in SEEN shows its value in force"
        return
    in_force = SEEN[seen](now)
    in_force = await in_force if inspect.isawaitable(in_force) else in_force
    expected = in_config(now.daemon.config, seen)
    if in_force != expected:
        yield f"{key} is {in_force} in force, and the config has {expected}"


@pytest.mark.integration_test
async def test_a_daemon_that_runs_keeps_the_settings_and_not_the_file(tmp_path: Path) -> None:
    def nodes() -> int:
        gc.unfreeze()
        gc.collect()
        return sum(isinstance(found, yaml.Node) for found in gc.get_objects())

    before = nodes()
    config = {"relay": False, "logger": {"level": "info"}}
    async with running(tmp_path, config) as now:
        assert nodes() == before
        await now.reload(config)
        assert nodes() == before


@pytest.mark.integration_test
async def test_jobs_that_move_to_the_database_wait_for_a_restart_and_the_rest_is_adopted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    anywhere = ["127.0.0.1", 0]
    base = {
        "websocket_uri": anywhere,
        "zeromq_uri": anywhere,
        "logger": {"file": f"{tmp_path}/monitor.log"},
        "probes": {"jobs": list(JOBS.values())},
    }

    async with running(tmp_path, base) as now:
        await now.reload(
            {
                **base,
                "probes": {"source": "database", "concurrency": 7},
                "relay": {"max_clients": 5},
            }
        )
        assert named(caplog) == {"probes.source", "probes.jobs"}
        assert now.probes.runner.job_ids() == list(range(1, len(JOBS) + 1))
        assert now.probes.runner._slots.limit == 7
        assert now.relay.channels.limits.max_clients == 5
