"""Jobs from the entries of a config of Gatus; pure."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from monitor.probes.foreign_values import (
    DAY_S,
    drop_idle_tls,
    header_texts,
    seconds,
    with_content_type,
)

__all__ = ["external_job", "gatus_job", "no_job"]

_KINDS = {
    "http": "http", "https": "http", "tcp": "tcp", "tls": "tls", "starttls": "tls",
    "ws": "websocket", "wss": "websocket", "icmp": "ping", "grpc": "grpc", "grpcs": "grpc",
}  # fmt: skip
_KEYS = {
    "name", "group", "url", "enabled", "interval", "method", "body", "headers", "conditions", "dns",
    "client", "graphql",
}  # fmt: skip
_CLIENT_KEYS = {"timeout", "insecure", "ignore-redirect", "proxy-url"}
_CONDITION = re.compile(r"\s*(\S+?)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*")
_COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_CODES = range(100, 1000)
_ANY = re.compile(r"any\((.*)\)")
_PATTERN = re.compile(r"pat\([*]([^*]+)[*]\)")
_GLOB = re.compile(r"pat\((.*)\)")
_OF_BODY = re.compile(r"(?:(len|has)\()?\[BODY\][.]?([^()]*)\)?")
_VARIABLE = re.compile(r"\$\{\w+\}|\$[A-Za-z_]\w*")
_LITERAL = re.compile(r"true|false|null|-?\d+(\.\d+)?")


def gatus_job(entry: Mapping[str, Any], lost: list[str]) -> dict[str, Any] | None:
    """Return an endpoint's job; ``lost`` gets what is not taken of it."""
    url = str(entry["url"])
    scheme, _, rest = url.partition("://")
    kind = _KINDS.get(scheme)
    job: dict[str, Any] = {"name": str(entry.get("name", "")), "url": url}
    if "dns" in entry:
        asked = entry["dns"]
        query = f"{asked['query-name'].rstrip('.')}?type={asked.get('query-type', 'A')}"
        kind, job["url"] = "dns", f"dns://{rest or url}/{query}"
    elif scheme == "starttls":
        job["url"], job["starttls"] = f"tls://{rest}", "smtp"
    elif scheme == "icmp":
        job["url"] = f"ping://{rest}"
    if kind is None:
        variable = _VARIABLE.match(url)
        lost.append(
            f"{scheme}:// has no kind of check"
            if variable is None
            else f"its URL, which begins with the variable {variable[0]}"
        )
        return None
    job["kind"] = kind
    if entry.get("group"):
        job["tags"] = [str(entry["group"])]
    if entry.get("enabled") is False:
        job["active"] = False
    if "interval" in entry:
        job["interval"] = seconds(entry["interval"])
    _take_client(entry.get("client") or {}, job, lost)
    drop_idle_tls(job)
    for key in ("method", "body", "headers"):
        if entry.get(key) and (kind == "http" or (key == "headers" and kind == "websocket")):
            job[key] = header_texts(entry[key]) if key == "headers" else entry[key]
        elif entry.get(key):
            lost.append(f"the key {key}")
    if entry.get("graphql") and kind == "http":
        job["body"] = json.dumps({"query": job.get("body", "")})
        with_content_type(job, "application/json")
    lost += [f"the key {key}" for key, value in entry.items() if value and key not in _KEYS]
    variables = _VARIABLE.findall(json.dumps([job.get(key) for key in ("url", "body", "headers")]))
    lost += [f"the variable {name}: it stays as it stands" for name in dict.fromkeys(variables)]
    _take_conditions(list(map(str, entry.get("conditions") or ())), job, lost)
    return job


def external_job(entry: Mapping[str, Any], lost: list[str]) -> dict[str, Any] | None:
    """Return the job of an endpoint that reports by itself."""
    interval = (entry.get("heartbeat") or {}).get("interval")
    if interval is None:
        lost.append("it has no heartbeat.interval: it is never late")
        return None
    lost.append("its token: make a key with POST /job/ID/key")
    job = {"kind": "heartbeat", "name": str(entry.get("name", "")), "interval": seconds(interval)}
    return {**job, "tags": [str(entry["group"])]} if entry.get("group") else job


def no_job(entry: Mapping[str, Any], lost: list[str]) -> None:
    """Say that the entry is of no kind that is checked here."""
    del entry
    lost.append("it has no kind of check")


def _take_client(client: Mapping[str, Any], job: dict[str, Any], lost: list[str]) -> None:
    kind = job["kind"]
    if "timeout" in client:
        job["timeout"] = seconds(client["timeout"])
    if client.get("insecure") and kind in ("http", "tls", "websocket", "grpc"):
        job["verify_tls"] = False
    if client.get("ignore-redirect") and kind == "http":
        job["follow_redirects"] = False
    if client.get("proxy-url") and kind in ("http", "websocket"):
        job["proxy"] = client["proxy-url"]
    elif client.get("proxy-url"):
        lost.append("the key client.proxy-url")
    lost += [f"the key client.{key}" for key in client if key not in _CLIENT_KEYS]


def _take_conditions(conditions: list[str], job: dict[str, Any], lost: list[str]) -> None:
    """Add what must be true to the job's keys."""
    codes = set(_CODES)
    for condition in conditions:
        found = _CONDITION.fullmatch(condition)
        what, sign, value = ("", "", "") if found is None else found.groups()
        allowed = None
        if what == "[STATUS]" and job["kind"] == "http":
            allowed = _allowed_codes(sign, value)
        if allowed is not None:
            codes &= allowed
        elif not _take_condition(what, sign, value, job):
            lost.append(f"the condition {condition}")
    if conditions and job["kind"] == "http":
        # Without a condition for it, any status will do there.
        job["expected_status"] = _ranges(codes)


def _allowed_codes(sign: str, value: str) -> set[int] | None:
    several = _ANY.fullmatch(value)
    if several and sign != "==":
        return None
    texts = [each.strip() for each in (several[1] if several else value).split(",")]
    if not all(text.isascii() and text.isdigit() for text in texts):
        return None
    compared = _COMPARISONS[sign]
    return {code for code in _CODES if any(compared(code, int(text)) for text in texts)}


def _ranges(codes: Iterable[int]) -> list[str]:
    found: list[list[int]] = []
    for code in sorted(codes):
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return [f"{low}-{high}" if low < high else f"{low}" for low, high in found]


def _take_condition(what: str, sign: str, value: str, job: dict[str, Any]) -> bool:
    """Add a condition to the job's keys; return whether that is possible."""
    kind = job["kind"]
    if (what, sign, value) == ("[CONNECTED]", "==", "true"):
        return True
    if what == "[CERTIFICATE_EXPIRATION]" and sign in (">", ">="):
        job["certificate_days"] = seconds(value) / DAY_S
        return True
    if what == "[DNS_RCODE]" and sign == "==":
        job["expected_rcode"] = value
        return True
    if what == "[BODY]" and kind == "dns" and sign == "==":
        several = _ANY.fullmatch(value)
        texts = several[1].split(",") if several else [value]
        choices = "|".join(_glob(each.strip()) for each in texts)
        job.setdefault("expected", []).append(f"^(?:{choices})$" if several else f"^{choices}$")
        return True
    if what == "[BODY]":
        pattern = _PATTERN.fullmatch(value)
        key = {"==": "body_regexp", "!=": "body_absent_regexp"}.get(sign)
        kinds = ("http", "tcp") if sign == "==" else ("http",)
        if pattern is None or key is None or kind not in kinds or key in job:
            return False
        job[key] = re.escape(pattern[1])
        return True
    expression = _expression(what, sign, value) if kind == "http" else None
    if expression is not None:
        job["json"] = f"{job['json']} && {expression}" if "json" in job else expression
    return expression is not None


def _glob(value: str) -> str:
    """Return the expression for a value, or for a pattern with stars."""
    pattern = _GLOB.fullmatch(value)
    return re.escape(value) if pattern is None else re.escape(pattern[1]).replace(r"\*", ".*")


def _expression(what: str, sign: str, value: str) -> str | None:
    """Return a condition about the body's JSON in JMESPath, or None."""
    found = _OF_BODY.fullmatch(what)
    if found is None or "pat(" in value or "any(" in value:
        return None
    function, path = found[1], found[2] or "@"
    if function == "has":
        if (sign, value) not in (("==", "true"), ("==", "false")):
            return None
        return f"{path} {'!=' if value == 'true' else '=='} `null`"
    numeric = _LITERAL.fullmatch(value)
    if sign not in ("==", "!=") and numeric is None:
        return None
    literal = value if numeric else json.dumps(value).replace("`", "\\`")
    return f"{f'length({path})' if function else path} {sign} `{literal}`"
