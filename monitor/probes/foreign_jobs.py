"""Jobs from the files of other programs; pure.

Understood are a target list of Prometheus (file_sd) whose label ``__param_module`` or ``module``
names one of blackbox_exporter's usual modules, a config of Gatus, and a backup of Uptime Kuma.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Found", "foreign_jobs"]

# A job's keys without its id, or what could not be taken; and where it is from.
Found = tuple[str, dict[str, Any] | None, list[str]]

_MODULES: Mapping[str, dict[str, Any]] = {
    "http_2xx": {"kind": "http"},
    "http_post_2xx": {"kind": "http", "method": "POST"},
    "tcp_connect": {"kind": "tcp"},
    "tcp_connect_tls": {"kind": "tls"},
    "ssh_banner": {"kind": "tcp", "body_regexp": "^SSH-2.0-"},
    "pop3s_banner": {"kind": "tcp", "tls": True, "body_regexp": r"^\+OK"},
    "icmp": {"kind": "ping"},
    "grpc": {"kind": "grpc"},
    "grpc_plain": {"kind": "grpc"},
}
_SCHEMES = {"http": "http", "tcp": "tcp", "tls": "tls", "ping": "ping", "grpc": "grpc"}
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_CONDITION = re.compile(r"\s*(\[[A-Z_]+\]\S*)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*")
_LEAST_INTERVAL_S = 1.0


def foreign_jobs(data: Any) -> Iterator[Found]:
    """Yield what each entry of a file becomes; raise ValueError for a file of another kind."""
    if isinstance(data, list) and all(
        isinstance(each, dict) and "targets" in each for each in data
    ):
        return _prometheus(data)
    if isinstance(data, dict) and isinstance(data.get("endpoints"), list):
        return _each("endpoint", data["endpoints"], _gatus)
    if isinstance(data, dict) and isinstance(data.get("monitorList"), list):
        return _each("monitor", data["monitorList"], _kuma)
    raise ValueError(
        "not a target list of Prometheus, a config of Gatus or a backup of Uptime Kuma"
    )


def _each(what: str, entries: list[Any], read: Any) -> Iterator[Found]:
    for number, entry in enumerate(entries, 1):
        place = f"{what} {number}"
        if not isinstance(entry, dict):
            yield place, None, ["is not an object"]
            continue
        lost: list[str] = []
        try:
            job = read(entry, lost)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            yield f"{place} ({entry.get('name', '')})", None, [f"cannot be read: {error}"]
        else:
            yield f"{place} ({entry.get('name', '')})", job, lost


def _prometheus(groups: list[dict[str, Any]]) -> Iterator[Found]:
    for number, group in enumerate(groups, 1):
        labels = group.get("labels") or {}
        module = labels.get("__param_module") or labels.get("module") or "http_2xx"
        tags = [
            f"{name}={value}"
            for name, value in labels.items()
            if not name.startswith("__") and name != "module"
        ]
        for target in group["targets"]:
            place = f"group {number}: {target}"
            if module not in _MODULES:
                yield place, None, [f"its module {module} is not known"]
                continue
            keys = dict(_MODULES[module])
            url = str(target)
            if "://" not in url:
                url = f"{_SCHEMES[keys['kind']]}://{url}"
            yield place, {"name": str(target), "url": url, **keys, "tags": tags}, []


def _seconds(text: Any) -> float:
    found = _DURATION.findall(str(text))
    if not found:
        raise ValueError(f"{text!r} is not a duration")
    return float(sum(float(number) * _UNITS_S[unit] for number, unit in found))


def _gatus(entry: dict[str, Any], lost: list[str]) -> dict[str, Any] | None:
    url = str(entry["url"])
    scheme, _, rest = url.partition("://")
    kinds = {"http": "http", "https": "http", "tcp": "tcp", "tls": "tls", "ws": "websocket"}
    kind = {**kinds, "wss": "websocket", "icmp": "ping", "grpc": "grpc", "grpcs": "grpc"}.get(
        scheme
    )
    job: dict[str, Any] = {"name": str(entry.get("name", "")), "url": url}
    if "dns" in entry:
        asked = entry["dns"]
        server = rest or url
        query = f"{asked['query-name'].rstrip('.')}?type={asked.get('query-type', 'A')}"
        kind, job["url"] = "dns", f"dns://{server}/{query}"
    elif scheme == "starttls":
        kind, job["url"], job["starttls"] = "tls", f"tls://{rest}", "smtp"
    elif scheme == "icmp":
        job["url"] = f"ping://{rest}"
    if kind is None:
        lost.append(f"{scheme}:// has no kind of check")
        return None
    job["kind"] = kind
    if entry.get("group"):
        job["tags"] = [str(entry["group"])]
    if entry.get("enabled") is False:
        job["active"] = False
    if "interval" in entry:
        job["interval"] = _seconds(entry["interval"])
    client = entry.get("client") or {}
    if "timeout" in client:
        job["timeout"] = _seconds(client["timeout"])
    if client.get("insecure") and kind in ("http", "tls", "websocket", "grpc"):
        job["verify_tls"] = False
    if client.get("ignore-redirect") and kind == "http":
        job["follow_redirects"] = False
    _drop_idle_tls(job)
    for key in ("method", "body", "headers"):
        if entry.get(key) and (kind == "http" or (key == "headers" and kind == "websocket")):
            job[key] = entry[key]
    lost += [
        f"the condition {condition}"
        for condition in entry.get("conditions") or ()
        if not _gatus_condition(str(condition), job)
    ]
    lost += [f"the key {key}" for key in ("alerts", "maintenance-windows") if entry.get(key)]
    return job


def _drop_idle_tls(job: dict[str, Any]) -> None:
    """Leave out that certificates are not verified where there are none; it is refused there."""
    scheme = str(job["url"]).partition(":")[0].lower()
    leads = job.get("follow_redirects", True) and job.get("max_redirects", 10) > 0
    if scheme in ("ws", "grpc") or (scheme == "http" and not leads):
        job.pop("verify_tls", None)


def _gatus_condition(text: str, job: dict[str, Any]) -> bool:
    """Add a condition to the job's keys; return whether that is possible."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        return False
    what, sign, value = found.groups()
    kind = job["kind"]
    if (what, sign, value) == ("[CONNECTED]", "==", "true"):
        return True
    if what == "[STATUS]" and kind == "http" and value.isdigit():
        code = int(value)
        ranges = {"==": f"{code}", "<": f"100-{code - 1}", "<=": f"100-{code}"}
        job["expected_status"] = [ranges[sign]] if sign in ranges else ["200-299"]
        return sign in ranges
    if what == "[CERTIFICATE_EXPIRATION]" and sign in (">", ">="):
        job["certificate_days"] = _seconds(value) / _UNITS_S["d"]
        return True
    if what == "[DNS_RCODE]" and sign == "==":
        job["expected_rcode"] = value
        return True
    if what == "[BODY]" and sign == "==":
        pattern = value[4:-1].strip("*") if value.startswith("pat(") else None
        if kind == "dns":
            job.setdefault("expected", []).append(f"^{re.escape(value)}$")
            return True
        if pattern is not None and "*" not in pattern and kind in ("http", "tcp"):
            job["body_regexp"] = re.escape(pattern)
            return True
        return False
    path = what.removeprefix("[BODY].")
    if path != what and kind == "http" and sign in ("==", "!=") and "pat(" not in value:
        literal = (
            f"`{value}`"
            if re.fullmatch(r"true|false|null|-?\d+(\.\d+)?", value)
            else (f"`{json.dumps(value)}`")
        )
        both = [job["json"]] if "json" in job else []
        job["json"] = " && ".join([*both, f"{path} {sign} {literal}"])
        return True
    return False


def _kuma(entry: dict[str, Any], lost: list[str]) -> dict[str, Any] | None:
    kind, host, port = str(entry["type"]), entry.get("hostname"), entry.get("port")
    job: dict[str, Any] = {"name": str(entry.get("name") or "")}
    if kind in ("http", "keyword", "json-query"):
        job |= {"kind": "http", "url": str(entry["url"])}
        if entry.get("method"):
            job["method"] = entry["method"]
        if entry.get("body"):
            job["body"] = entry["body"]
        if entry.get("headers"):
            headers = entry["headers"]
            job["headers"] = json.loads(headers) if isinstance(headers, str) else headers
        if entry.get("accepted_statuscodes"):
            job["expected_status"] = entry["accepted_statuscodes"]
        if entry.get("ignoreTls"):
            job["verify_tls"] = False
        if entry.get("maxredirects") is not None:
            job["max_redirects"] = int(entry["maxredirects"])
        _drop_idle_tls(job)
        if kind == "keyword" and entry.get("keyword"):
            key = "body_absent_regexp" if entry.get("invertKeyword") else "body_regexp"
            job[key] = re.escape(entry["keyword"])
        if kind == "json-query":
            lost.append("its JSON query, which is JSONata: write it as json")
        if entry.get("basic_auth_user"):
            lost.append("its credentials: write them in the URL")
    elif kind == "port":
        job |= {"kind": "tcp", "url": f"tcp://{host}:{port}"}
    elif kind == "ping":
        job |= {"kind": "ping", "url": f"ping://{host}"}
    elif kind == "dns":
        server = f"{entry['dns_resolve_server']}:{port or 53}"
        job |= {"kind": "dns", "url": f"dns://{server}/{host}?type={entry['dns_resolve_type']}"}
    elif kind == "push":
        job["kind"] = "heartbeat"
        lost.append("its push token: make a key with POST /job/ID/key")
    else:
        lost.append(f"the type {kind} has no kind of check")
        return None
    if entry.get("upsideDown"):
        lost.append("upside down: it is imported without")
    if entry.get("interval"):
        job["interval"] = max(_LEAST_INTERVAL_S, float(entry["interval"]))
    if entry.get("timeout") and job["kind"] != "heartbeat":
        job["timeout"] = float(entry["timeout"])
    if entry.get("maxretries") and job["kind"] != "heartbeat":
        job["retries"] = min(10, int(entry["maxretries"]))
    if entry.get("active") in (False, 0):
        job["active"] = False
    tags = [each["name"] for each in entry.get("tags") or () if isinstance(each, dict)]
    return {**job, "tags": tags} if tags else job
