"""Jobs from the monitors of a backup of Uptime Kuma; pure."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from monitor.probes.foreign_values import (
    bracketed,
    drop_idle_tls,
    header_texts,
    number,
    text,
    truth,
    with_content_type,
)

__all__ = ["group_names", "kuma_job"]

_LEAST_INTERVAL_S = 1.0
_MOST_RETRIES = 10
# What it sends with a body of these encodings.
_TYPES = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "xml": "text/xml; charset=utf-8",
}
# Keys that change what is checked; most others are in every backup.
_LOST = ("proxyId", "tlsCert", "tlsKey", "tlsCa", "oauth_client_id", "expectedValue", "conditions")
_OWN_CREDENTIALS = re.compile(r"\A[^/?#]*@")
_IP_VERSIONS = {"ipv4": "4", "ipv6": "6"}
_PING_KEYS = {"count": "ping_count", "timeout": "ping_global_timeout"}


def group_names(monitors: list[Any]) -> dict[Any, str]:
    """Return the names of the groups, by their ids."""
    return {
        each.get("id"): text(each.get("name"))
        for each in monitors
        if isinstance(each, dict) and each.get("type") == "group"
    }


def kuma_job(
    entry: dict[str, Any], lost: list[str], *, groups: Mapping[Any, str]
) -> dict[str, Any] | None:
    """Return a monitor's job; ``lost`` gets what is not taken of it."""
    kind, host, port = text(entry["type"]), _host(entry), entry.get("port")
    job: dict[str, Any] = {"name": text(entry.get("name"))}
    if kind in ("http", "keyword", "json-query"):
        _take_http(entry, job, lost)
    elif kind == "port":
        job |= {"kind": "tcp", "url": f"tcp://{bracketed(host)}:{port}"}
    elif kind == "smtp":
        _take_smtp(entry, job)
    elif kind == "websocket-upgrade":
        _take_websocket(entry, job, lost)
    elif kind == "ping":
        job |= {"kind": "ping", "url": f"ping://{bracketed(host)}"}
        if entry.get("ping_count"):
            job["count"] = int(number(entry, "ping_count"))
    elif kind == "dns":
        _take_dns(entry, job, lost)
    elif kind == "push":
        job["kind"] = "heartbeat"
        lost.append("its push token: make a key with POST /job/ID/key")
    elif kind == "group":
        lost.append("a group: its name is a tag of its monitors")
        return None
    else:
        lost.append(f"the type {kind} has no kind of check")
        return None
    lost += [f"the key {key}" for key in _LOST if entry.get(key)]
    _take_common(entry, job, lost)
    tags = [
        f"{text(each['name'])}={text(each['value'])}" if each.get("value") else text(each["name"])
        for each in entry.get("tags") or ()
        if isinstance(each, dict) and each.get("name")
    ]
    if groups.get(entry.get("parent")):
        tags.append(groups[entry["parent"]])
    return {**job, "tags": tags} if tags else job


def _host(entry: Mapping[str, Any]) -> str:
    return text(entry.get("hostname")).strip()


def _take_common(entry: Mapping[str, Any], job: dict[str, Any], lost: list[str]) -> None:
    asks = job["kind"] != "heartbeat"
    if truth(entry.get("upsideDown", False)):
        lost.append("upside down: it is imported without")
    if entry.get("interval"):
        job["interval"] = max(_LEAST_INTERVAL_S, number(entry, "interval"))
    if entry.get("timeout") and asks:
        job["timeout"] = number(entry, "timeout")
    retries = int(number(entry, "maxretries")) if entry.get("maxretries") else 0
    if retries and asks:
        job["retries"] = min(_MOST_RETRIES, retries)
        if retries > _MOST_RETRIES:
            lost.append(f"more than {_MOST_RETRIES} retries")
    elif retries:
        lost.append("its retries: write them as grace")
    if entry.get("ipFamily") and asks:
        job["ip_version"] = _IP_VERSIONS.get(text(entry["ipFamily"]), "any")
    if not truth(entry.get("active", True)):
        job["active"] = False


def _take_http(entry: Mapping[str, Any], job: dict[str, Any], lost: list[str]) -> None:
    job |= {"kind": "http", "url": text(entry["url"])}
    if entry.get("method"):
        job["method"] = text(entry["method"]).upper()
    _take_headers(entry, job, lost)
    if entry.get("body"):
        job["body"] = entry["body"]
        encoding = entry.get("httpBodyEncoding") or "json"
        with_content_type(job, _TYPES.get(encoding, encoding))
    if entry.get("accepted_statuscodes"):
        job["expected_status"] = entry["accepted_statuscodes"]
    if truth(entry.get("ignoreTls", False)):
        job["verify_tls"] = False
    if entry.get("maxredirects") is not None:
        redirects = int(number(entry, "maxredirects"))
        # Without redirects, theirs is the answer.
        job |= {"max_redirects": redirects} if redirects > 0 else {"follow_redirects": False}
    drop_idle_tls(job)
    if entry["type"] == "keyword" and entry.get("keyword"):
        key = "body_absent_regexp" if truth(entry.get("invertKeyword", False)) else "body_regexp"
        job[key] = re.escape(text(entry["keyword"]))
    if entry["type"] == "json-query":
        lost.append("its JSON query, which is JSONata: write it as json")
    _take_credentials(entry, job, lost)


def _take_credentials(entry: Mapping[str, Any], job: dict[str, Any], lost: list[str]) -> None:
    method = text(entry.get("authMethod")) or "basic"
    if method not in ("basic", "null"):
        lost.append(f"its authentication {method}")
    elif entry.get("basic_auth_user"):
        user, password = (
            quote(text(entry.get(key)), safe="") for key in ("basic_auth_user", "basic_auth_pass")
        )
        scheme, colon, rest = job["url"].partition("://")
        # Those of the URL do not count there.
        job["url"] = f"{scheme}{colon}{user}:{password}@{_OWN_CREDENTIALS.sub('', rest)}"


def _take_headers(entry: Mapping[str, Any], job: dict[str, Any], lost: list[str]) -> None:
    headers = entry.get("headers")
    if headers:
        try:
            given = json.loads(headers) if isinstance(headers, str) else headers
        except ValueError:
            lost.append("its headers, which are not JSON")
        else:
            job["headers"] = header_texts(given)


def _take_smtp(entry: Mapping[str, Any], job: dict[str, Any]) -> None:
    security = text(entry.get("smtpSecurity"))
    host, port = bracketed(_host(entry)), entry.get("port") or 25
    job |= {"kind": "tcp", "url": f"tcp://{host}:{port}"}
    if security == "starttls":
        job["starttls"] = "smtp"
    else:
        job |= {"tls": True} if security == "secure" else {}
        job["body_regexp"] = "^220 "


def _take_websocket(entry: Mapping[str, Any], job: dict[str, Any], lost: list[str]) -> None:
    job |= {"kind": "websocket", "url": text(entry["url"])}
    _take_headers(entry, job, lost)
    offered = "".join(text(entry.get("wsSubprotocol")).split())
    if "," in offered:
        job.setdefault("headers", {})["Sec-WebSocket-Protocol"] = offered
    elif offered:
        job["subprotocol"] = offered
    if truth(entry.get("ignoreTls", False)):
        job["verify_tls"] = False
    drop_idle_tls(job)
    if truth(entry.get("wsIgnoreSecWebsocketAcceptHeader", False)):
        lost.append("the key wsIgnoreSecWebsocketAcceptHeader")


def _take_dns(entry: Mapping[str, Any], job: dict[str, Any], lost: list[str]) -> None:
    first, *others = text(entry["dns_resolve_server"]).replace(" ", "").split(",")
    if others:
        lost.append(f"its name servers but the first: {', '.join(others)}")
    name, asked = _host(entry), text(entry["dns_resolve_type"])
    if asked == "PTR":
        # There it is an address.
        try:
            name = ipaddress.ip_address(name).reverse_pointer
        except ValueError:
            lost.append(f"the address {name}: it stays as it stands")
    server = f"{bracketed(first)}:{entry.get('port') or 53}"
    # There an answer without a record is a failure.
    job |= {"kind": "dns", "url": f"dns://{server}/{name}?type={asked}", "expected": ["."]}
