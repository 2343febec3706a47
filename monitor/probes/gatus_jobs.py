"""Jobs from the entries of a config of Gatus; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from monitor.probes.foreign_values import (
    bracketed,
    drop_idle_tls,
    header_texts,
    take_seconds,
    text,
    truth,
    with_content_type,
)
from monitor.probes.gatus_conditions import take_conditions

__all__ = ["external_job", "gatus_job", "no_job"]

_KINDS = {
    "http": "http", "https": "http", "tcp": "tcp", "tls": "tls", "starttls": "tls",
    "ws": "websocket", "wss": "websocket", "icmp": "ping", "grpc": "grpc", "grpcs": "grpc",
}  # fmt: skip
_KEYS = {
    "name", "group", "url", "enabled", "interval", "method", "body", "headers", "conditions", "dns",
    "client", "graphql", "ssh",
}  # fmt: skip
_EXTERNAL_KEYS = {"name", "group", "enabled", "token", "heartbeat"}
_CLIENT_KEYS = {"timeout", "insecure", "ignore-redirect", "proxy-url", "network"}
_NETWORKS = {"ip": "any", "ip4": "4", "ip6": "6"}
_VARIABLE = re.compile(r"\$\{\w+\}|\$[A-Za-z_]\w*|\[(?:ENDPOINT|LOCAL|RANDOM|CONTEXT)\w*\]")
_SSH_PORT = 22


def gatus_job(entry: Mapping[str, Any], lost: list[str]) -> dict[str, Any] | None:
    """Return an endpoint's job; ``lost`` gets what is not taken of it."""
    url = text(entry["url"])
    scheme, _, rest = url.partition("://")
    kind = _KINDS.get(scheme)
    job: dict[str, Any] = {"name": text(entry.get("name")), "url": url}
    if "dns" in entry:
        asked = entry["dns"]
        query = f"{text(asked['query-name']).rstrip('.')}?type={text(asked.get('query-type', 'A'))}"
        kind, job["url"] = "dns", f"dns://{bracketed(rest or url)}/{query}"
    elif scheme == "starttls":
        job["url"], job["starttls"] = f"tls://{rest}", "smtp"
    elif scheme == "icmp":
        job["url"] = f"ping://{rest}"
    elif scheme == "ssh" and "ssh" in entry and not any((entry["ssh"] or {}).values()):
        # Without a login it reads the banner only.
        place = rest if re.search(r":\d+$", rest) else f"{rest}:{_SSH_PORT}"
        kind, job["url"], job["body_regexp"] = "tcp", f"tcp://{place}", "^SSH-"
    if kind is None:
        variable = _VARIABLE.match(url)
        lost.append(
            f"{scheme}:// has no kind of check"
            if variable is None
            else f"its URL, which begins with the variable {variable[0]}"
        )
        return None
    job["kind"] = kind
    _take_common(entry, job)
    if "interval" in entry:
        take_seconds(entry["interval"], "interval", "the key interval", job, lost)
    _take_client(entry.get("client") or {}, job, lost)
    drop_idle_tls(job)
    _take_request(entry, job, lost)
    lost += [f"the key {key}" for key, value in entry.items() if value and key not in _KEYS]
    variables = _VARIABLE.findall(json.dumps([job.get(key) for key in ("url", "body", "headers")]))
    lost += [f"the variable {name}: it stays as it stands" for name in dict.fromkeys(variables)]
    conditions = entry.get("conditions") or []
    if not isinstance(conditions, list):
        raise ValueError("conditions must be a list")  # noqa: TRY004 - the file is wrong
    conditions = list(map(text, conditions))
    if scheme == "ssh":
        conditions = [each for each in conditions if each.split() != ["[STATUS]", "==", "0"]]
    take_conditions(conditions, job, lost)
    return job


def _take_common(entry: Mapping[str, Any], job: dict[str, Any]) -> None:
    if entry.get("group"):
        job["tags"] = [text(entry["group"])]
    if not truth(entry.get("enabled", True)):
        job["active"] = False


def _take_request(entry: Mapping[str, Any], job: dict[str, Any], lost: list[str]) -> None:
    kind = job["kind"]
    for key in ("method", "body", "headers"):
        if entry.get(key) and (kind == "http" or (key == "headers" and kind == "websocket")):
            job[key] = header_texts(entry[key]) if key == "headers" else text(entry[key])
        elif entry.get(key) and key == "body" and kind in ("tcp", "websocket"):
            job["dialogue"] = [{"send": text(entry[key])}]
        elif entry.get(key):
            lost.append(f"the key {key}")
    if truth(entry.get("graphql", False)) and kind == "http":
        job["body"] = json.dumps({"query": job.get("body", "")})
        with_content_type(job, "application/json")


def external_job(entry: Mapping[str, Any], lost: list[str]) -> dict[str, Any] | None:
    """Return the job of an endpoint that reports by itself."""
    interval = (entry.get("heartbeat") or {}).get("interval")
    job: dict[str, Any] = {"kind": "heartbeat", "name": text(entry.get("name"))}
    if interval is not None:
        take_seconds(interval, "interval", "the key heartbeat.interval", job, lost)
    if not job.get("interval"):
        lost.append("it has no heartbeat.interval: it is never late")
        return None
    lost.append("its token: make a key with POST /job/ID/key")
    lost += [
        f"the key {key}" for key, value in entry.items() if value and key not in _EXTERNAL_KEYS
    ]
    _take_common(entry, job)
    return job


def no_job(entry: Mapping[str, Any], lost: list[str]) -> None:
    """Say that the entry is of no kind that is checked here."""
    del entry
    lost.append("it has no kind of check")


def _take_client(client: Mapping[str, Any], job: dict[str, Any], lost: list[str]) -> None:
    kind = job["kind"]
    if "timeout" in client:
        take_seconds(client["timeout"], "timeout", "the key client.timeout", job, lost)
    if truth(client.get("insecure", False)) and kind in ("http", "tls", "websocket", "grpc"):
        job["verify_tls"] = False
    if truth(client.get("ignore-redirect", False)) and kind == "http":
        job["follow_redirects"] = False
    if client.get("proxy-url") and kind in ("http", "websocket"):
        job["proxy"] = text(client["proxy-url"])
    elif client.get("proxy-url"):
        lost.append("the key client.proxy-url")
    network = text(client.get("network", "ip"))
    if network in _NETWORKS:
        job |= {"ip_version": _NETWORKS[network]} if network != "ip" else {}
    else:
        lost.append(f"the key client.network: {network}")
    lost += [f"the key client.{key}" for key in client if key not in _CLIENT_KEYS]
