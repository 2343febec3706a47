"""What to check: the keys that jobs of every kind have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from monitor.errors import SettingError
from monitor.probes.urls import parse_url, shown_url
from monitor.settings import Section, verify_each

__all__ = ["Job", "Option", "verify_text"]

_DAY_S = 86400.0

JobId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_MOST_TAGS = 100
_MOST_DEPENDENCIES = 100


class Job(Section, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=""):
    """One site to check, as the config, a jobs file or the database has it.

    Each kind of check has a subclass with its own keys; its tag is the kind's name.
    """

    schemes: ClassVar[tuple[str, ...]] = ()
    """Schemes of the kind's URLs; no two kinds share one."""

    # identifies the job and its results; never reuse one
    id: JobId
    # shown to people
    name: str = ""
    # what to check, with one of the kind's schemes; credentials in it are sent and never shown
    url: str
    # s between two runs, on a fixed grid
    interval: Annotated[float, msgspec.Meta(ge=0.1, le=7 * _DAY_S)] = 60.0
    # s for one attempt, from its start to the last byte
    timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
    # further attempts before "down" is reported
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    # which addresses of the host are tried
    ip_version: Literal["any", "4", "6"] | Literal[4, 6] = "any"
    # false: not checked
    active: bool = True
    # labels, for alerts and lists
    tags: list[Tag] = msgspec.field(default_factory=list)
    # ids of jobs; while one of them is down, this one is shown as unknown, and still checked
    depends_on: list[JobId] = msgspec.field(default_factory=list)
    # s of response time from which an up result is degraded
    degraded_after: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None

    def verify(self) -> None:
        """Check what types cannot say; raise SettingError with the key.

        Reads the files that the job names and does no other I/O. A kind adds its own rules.
        """
        verify_each(self.verify_common, lambda: parse_url(self.url, self.schemes))

    def verify_common(self) -> None:
        """Check what jobs without a URL have, too."""
        verify_each(
            *(
                partial(verify_text, (key,), value)
                for key in self.__struct_fields__
                # Numbers are most of the keys of thousands of jobs.
                if isinstance(value := getattr(self, key), str | dict | list)
            ),
            partial(self._verify_count, "tags", _MOST_TAGS),
            partial(self._verify_count, "depends_on", _MOST_DEPENDENCIES),
            self._verify_not_own,
        )

    def _verify_count(self, key: str, most: int) -> None:
        if len(getattr(self, key)) > most:
            raise SettingError((key,), f"more than {most}")

    def _verify_not_own(self) -> None:
        if self.id in self.depends_on:
            raise SettingError(("depends_on",), "the job cannot depend on itself")

    @property
    def kind(self) -> str:
        """The name of the job's kind."""
        return str(self.__struct_config__.tag)

    @property
    def shown_url(self) -> str:
        """The URL as results, logs and pages may show it."""
        return shown_url(self.url)

    @property
    def title(self) -> str:
        """What to call the job in messages to people."""
        return f"job {self.id} ({self.name})" if self.name else f"job {self.id}"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of ``recodex-monitor probe`` that sets a key of the job.

    Without a ``metavar`` it takes no value and sets ``value``; ``many`` may be given repeatedly.
    ``type`` reads a value, as argparse has it.
    """

    flag: str
    key: str
    help: str
    metavar: str | None = None
    value: Any = None
    many: bool = False
    type: Callable[[str], Any] = str


def verify_text(path: tuple[str | int, ...], value: Any) -> None:
    """Raise SettingError for text that no database, no JSON or no UTF-8 can hold."""
    if isinstance(value, str):
        if "\0" in value:
            raise SettingError(path, "must not contain NUL")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SettingError(path, "is not valid Unicode: half of a surrogate pair") from None
    elif isinstance(value, dict):
        for name, each in value.items():
            verify_text(path, name)
            verify_text((*path, name), each)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            verify_text((*path, number), each)
