"""The section ``alerts`` of the config."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from monitor.alerts.urls import read_urls, web_url
from monitor.errors import SettingError
from monitor.settings import (
    Count,
    Reloadable,
    Seconds,
    Section,
    raise_all,
    read_secret,
    secret,
    verify_each,
)

__all__ = [
    "AlertsSettings",
    "AnyRule",
    "CertificateRule",
    "FeedRule",
    "LogsRule",
    "Maintenance",
    "Match",
    "PartRule",
    "Receiver",
    "RolloutRule",
    "Rule",
    "SilenceRule",
    "SiteRule",
]

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"\S")]
# Longer ones take long to compile.
_Pattern = Annotated[str, msgspec.Meta(max_length=1000)]
_Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_Few = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
_JobId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_MOST_RECEIVERS = 100


class Match(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What something applies to: everything given must match; nothing given matches all."""

    # sites with any of these tags, at most 1000
    tags: Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)] = ()
    # sites with any of these ids, at most 10,000
    jobs: Annotated[tuple[_JobId, ...], msgspec.Meta(max_length=10_000)] = ()
    # senders of log entries, with * and ? as wildcards; [*] is a plain *
    sender: _Pattern | None = None
    # subjects of incidents, with * and ? as wildcards; [*] is a plain *
    subject: _Pattern | None = None
    # rules of incidents by name, with wildcards, too
    rule: _Pattern | None = None


class Receiver(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where messages go; exactly one of urls_file, webhook and alertmanager."""

    # how rules name it
    name: _Name
    # file of Apprise URLs, one a line; # begins a comment. It is read again by a reload
    urls_file: str | None = None
    # URL that gets JSON by POST
    webhook: Annotated[str, secret] | None = None
    # file with the key of the header X-Signature-256 of a webhook
    secret_file: str | None = None
    # URLs of Alertmanagers, such as http://127.0.0.1:9093; each gets every alert
    alertmanager: Annotated[tuple[str, ...], secret] = ()

    def verify(self) -> None:
        """Check the kind, the URLs and the files."""
        given = [key for key in ("urls_file", "webhook", "alertmanager") if getattr(self, key)]
        if len(given) != 1:
            problem = f"has {' and '.join(given)}" if given else "has none of them"
            raise SettingError((), f"needs one of urls_file, webhook and alertmanager; {problem}")
        verify_each(self._verify_urls, self._verify_secret, self.urls)

    def _verify_urls(self) -> None:
        if self.webhook is not None:
            _verify_url(self.webhook, ("webhook",))
        for number, url in enumerate(self.alertmanager):
            _verify_url(url, ("alertmanager", number))

    def _verify_secret(self) -> None:
        if self.secret_file is not None and self.webhook is None:
            raise SettingError(("secret_file",), "is for a webhook")
        self.secret()

    def secret(self) -> str | None:
        """Return the key that signs; raise SettingError if its file cannot be read."""
        if self.secret_file is None:
            return None
        return read_secret(self.secret_file, path=("secret_file",))

    def urls(self) -> tuple[str, ...]:
        """Return the URLs of urls_file; raise SettingError if it cannot be read or has none."""
        return () if self.urls_file is None else read_urls(self.urls_file, path=("urls_file",))


class Rule(
    Section, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="watch", tag=""
):
    """What opens an incident, and who gets it."""

    # how incidents name it; unique
    name: _Name
    # what it watches; empty: all
    match: Match = Match()
    # names of receivers; empty: incidents are only shown
    receivers: tuple[str, ...] = ()
    # s after which an incident that is open and not acknowledged is sent again; null: never
    repeat: Annotated[float, msgspec.Meta(ge=1, le=3_200_000_000)] | None = None
    # whether the end is sent, too
    resolved: bool = True

    @property
    def watch(self) -> str:
        """What the rule watches: site, certificate, ..."""
        return str(self.__struct_config__.tag)


class SiteRule(Rule, frozen=True, tag="site"):
    """Sites that are down."""

    # failed results in a row that open an incident
    failures: _Few = 2
    # good results in a row that resolve it
    successes: _Few = 1
    # whether a degraded result counts as failed
    degraded: bool = False


class CertificateRule(Rule, frozen=True, tag="certificate"):
    """Certificates that expire soon."""

    # days before the expiry
    days: Annotated[float, msgspec.Meta(gt=0, le=3650)] = 14.0


class RolloutRule(Rule, frozen=True, tag="rollout"):
    """Rollouts that failed."""


class FeedRule(Rule, frozen=True, tag="feed"):
    """A relay without a broker."""

    # s without a broker
    for_: Seconds = msgspec.field(name="for", default=60.0)


class LogsRule(Rule, frozen=True, tag="logs"):
    """Senders with many severe log entries."""

    # the lowest level that counts
    min_level: Literal["debug", "info", "warning", "error", "critical"] = "error"
    # entries of one sender that open an incident
    count: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    # s in which they come
    within: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 300.0


class PartRule(Rule, frozen=True, tag="part"):
    """Parts of the daemon that are degraded."""

    # s that a part is degraded
    for_: Seconds = msgspec.field(name="for", default=300.0)


class SilenceRule(Rule, frozen=True, tag="silence"):
    """Sites whose results are missing."""

    # intervals of the job without a result
    intervals: _Few = 3


if TYPE_CHECKING:
    AnyRule = Rule
else:
    # What msgspec decodes rules to: the struct of what they watch.
    AnyRule = (
        SiteRule | CertificateRule | RolloutRule | FeedRule | LogsRule | PartRule | SilenceRule
    )


class Maintenance(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A window in each week in which incidents are not sent."""

    # how incidents name it
    name: _Name
    # days on which it begins; empty: every day
    days: tuple[_Day, ...] = ()
    # local time at which it begins, HH:MM
    from_: str = msgspec.field(name="from", default="00:00")
    # local time at which it ends; up to 24:00, or earlier than from: on the next day
    until: str = "24:00"
    # name of a time zone, such as Europe/Prague
    time_zone: str = "UTC"
    # what it applies to; empty: all
    match: Match = Match()

    def verify(self) -> None:
        """Check times and the time zone."""
        verify_each(self._verify_from, self._verify_until, self._verify_zone)

    def _verify_from(self) -> None:
        if _minutes(self.from_) is None or self.from_ == "24:00":
            raise SettingError(("from",), f"{self.from_!r} is not a time; write HH:MM")

    def _verify_until(self) -> None:
        if _minutes(self.until) is None:
            raise SettingError(("until",), f"{self.until!r} is not a time; write HH:MM")
        if self.from_ == self.until:
            raise SettingError(("until",), "is the same as from")

    def _verify_zone(self) -> None:
        try:
            self.zone()
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise SettingError(
                ("time_zone",), f"{self.time_zone!r} is not a time zone that this host knows"
            ) from None

    def zone(self) -> datetime.tzinfo:
        """Return the time zone."""
        return datetime.UTC if self.time_zone == "UTC" else zoneinfo.ZoneInfo(self.time_zone)

    def span(self) -> tuple[int, int]:
        """Return the minutes of the day at which it begins and ends; the end may be on the next."""
        begin, end = _minutes(self.from_) or 0, _minutes(self.until) or 0
        return begin, end if end > begin else end + 1440

    def weekdays(self) -> frozenset[int]:
        """Return the days on which it begins, 0 for Monday."""
        return frozenset(_DAYS.index(day) for day in self.days or _DAYS)


class AlertsSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``alerts``: what opens incidents, and who gets them."""

    # where messages go
    receivers: Reloadable[list[Receiver]] = msgspec.field(default_factory=list)
    # what opens incidents
    rules: Reloadable[list[AnyRule]] = msgspec.field(default_factory=list)
    # windows in which incidents are not sent
    maintenance: Reloadable[list[Maintenance]] = msgspec.field(default_factory=list)
    # s in which what opens together goes out as one message
    group_wait: Reloadable[Annotated[float, msgspec.Meta(ge=0, le=3600)]] = 5.0
    # incidents of one rule and subject that are sent in flapping_within; more are held back
    flapping: Reloadable[Count] = 5
    # s
    flapping_within: Reloadable[Seconds] = 1800.0
    # URL of the live page, for links in messages
    page: Reloadable[str | None] = None
    # s that resolved incidents are kept
    keep_incidents: Reloadable[Annotated[float, msgspec.Meta(ge=86400, le=3_200_000_000)]] = (
        31_536_000.0
    )
    # topic of the results
    topic: str = "website_availability"
    # topic of the model events
    model_topic: str = "model-updates"
    # instances of one group share the work
    group: str = "recodex-monitor-alerts"

    @classmethod
    def completed(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Accept one URL of an Alertmanager without a list."""
        receivers = data.get("receivers")
        if not isinstance(receivers, list):
            return data
        return {**data, "receivers": [_with_list(receiver) for receiver in receivers]}

    def verify(self) -> None:
        """Check names, and every receiver, rule and window."""
        verify_each(
            self._verify_texts,
            self._verify_receivers,
            lambda: _verify_unique("rules", self.rules),
            lambda: _verify_unique("maintenance", self.maintenance),
            lambda: _verify_items("receivers", self.receivers),
            lambda: _verify_items("maintenance", self.maintenance),
        )
        # It says which receivers there are.
        self._verify_rules()

    def _verify_texts(self) -> None:
        for key in ("topic", "model_topic", "group"):
            if not getattr(self, key):
                raise SettingError((key,), "must not be empty")
        if self.page is not None:
            _verify_url(self.page, ("page",))

    def _verify_receivers(self) -> None:
        if len(self.receivers) > _MOST_RECEIVERS:
            raise SettingError(("receivers",), f"more than {_MOST_RECEIVERS}")
        _verify_unique("receivers", self.receivers)

    def _verify_rules(self) -> None:
        known = [receiver.name for receiver in self.receivers]
        hint = f"known are {', '.join(known)}" if known else "there are none"
        raise_all(
            SettingError(
                ("rules", number, "receivers", place),
                f"no receiver {name!r}; {hint}",
                among=(("receivers",), "name", name),
            )
            for number, rule in enumerate(self.rules)
            for place, name in enumerate(rule.receivers)
            if name not in known
        )

    def rule(self, name: str) -> Rule | None:
        """Return the rule of that name."""
        return next((rule for rule in self.rules if rule.name == name), None)


def _with_list(receiver: Any) -> Any:
    if isinstance(receiver, dict) and isinstance(receiver.get("alertmanager"), str):
        return {**receiver, "alertmanager": [receiver["alertmanager"]]}
    return receiver


def _verify_unique(key: str, items: Iterable[Receiver | Rule | Maintenance]) -> None:
    seen: set[str] = set()
    errors = []
    for number, item in enumerate(items):
        if item.name in seen:
            errors.append(SettingError((key, number, "name"), f"duplicate name {item.name!r}"))
        seen.add(item.name)
    raise_all(errors)


def _verify_items(key: str, items: Iterable[Receiver | Maintenance]) -> None:
    for number, item in enumerate(items):
        try:
            item.verify()
        except SettingError as error:
            raise error.under(key, number) from None


def _verify_url(url: str, path: tuple[str | int, ...]) -> None:
    scheme, separator, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    printable = url.isprintable() and " " not in url
    if scheme not in ("http", "https") or not separator or not host or not printable:
        raise SettingError(path, "is not a URL with http:// or https:// and a host")
    try:
        web_url(url)
    except ValueError:
        raise SettingError(path, "is not a URL: its host or its port is invalid") from None


def _minutes(text: str) -> int | None:
    hours, colon, minutes = text.partition(":")
    if not (colon and len(minutes) == 2 and len(hours) in (1, 2)):
        return None
    if not (hours.isascii() and hours.isdigit() and minutes.isascii() and minutes.isdigit()):
        return None
    found = int(hours) * 60 + int(minutes)
    return found if int(minutes) < 60 and found <= 1440 else None
