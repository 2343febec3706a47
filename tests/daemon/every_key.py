"""Every key of the config, and another value for each."""

from __future__ import annotations

import json
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import trustme
import zmq.auth
from msgspec.inspect import Metadata, StructType, Type, UnionType

from monitor.alerts.settings import Rule
from monitor.daemon.config import Config
from monitor.probes.checks import KINDS
from monitor.settings import Section, is_marked
from monitor.tokens import Role, create_token
from tests.ports import free_port

__all__ = ["INHERITED", "JOBS", "Key", "change", "config", "in_config", "keys", "rounds"]

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
