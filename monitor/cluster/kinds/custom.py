"""Custom resources of any kind, as the config describes them.

The places in an object are JMESPath expressions (https://jmespath.org), such as
``status.conditions[?type == 'Ready'] | [0].status``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import msgspec

from monitor.cluster.kinds.kind import Kind, Resource, resource_service
from monitor.cluster.objects import Lenient, OwnMetadata, decoder_of
from monitor.cluster.services import Failure, Service
from monitor.errors import SettingError
from monitor.settings import Section

__all__ = ["CustomKind", "CustomKindSettings"]

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9]{0,62}$")]
_Group = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
_Version = Annotated[str, msgspec.Meta(pattern=r"^v[0-9][a-z0-9]{0,62}$")]
_Plural = Annotated[str, msgspec.Meta(pattern=r"^[a-z][-a-z0-9]{0,62}$")]
_EXPRESSIONS = ("model_version", "wanted", "reached", "ready", "failure")


class CustomKindSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of custom resource, and where its facts are: JMESPath expressions in the object."""

    # the name of the kind in events, such as ModelServer
    kind: _Name
    # the group of its API
    group: _Group
    # the version of its API
    version: _Version
    # the name of the resource in the API's paths, such as modelservers
    plural: _Plural
    # where the model's version is; a change of it is an upgrade
    model_version: str
    # where the wanted generation is
    wanted: str = "metadata.generation"
    # where the generation is that the controller has reached
    reached: str = "status.observedGeneration"
    # what must be true, "True" or not empty once it is rolled out; null: nothing more
    ready: str | None = None
    # where the reason of a failed rollout is, empty or false without one; null: nowhere
    failure: str | None = None

    def verify(self) -> None:
        """Check that the expressions are JMESPath."""
        for key in _EXPRESSIONS:
            text = getattr(self, key)
            if text is not None:
                _compiled(text, key)


def _compiled(text: str, key: str) -> Callable[[Any], Any]:
    try:
        import jmespath
    except ModuleNotFoundError:
        problem = "needs the Python module jmespath; install python3-jmespath"
        raise SettingError((), problem) from None
    try:
        expression = jmespath.compile(text)
    except (ValueError, RecursionError) as error:
        problem = re.sub(r"\s+", " ", str(error).partition("\n")[0])[:200]
        raise SettingError((key,), f"not JMESPath: {problem}") from None
    options = jmespath.Options()

    def find(item: Any) -> Any:
        try:
            found = expression.search(item, options=options)
            # A filter gives a list of what it finds, such as one condition.
            return found[0] if isinstance(found, list) and len(found) == 1 else found
        except (ValueError, TypeError, RecursionError, ArithmeticError):
            # A function of the expression does not fit what is there.
            return None

    return find


class _Item(Lenient):
    metadata: OwnMetadata = msgspec.field(default_factory=OwnMetadata)


_decode = msgspec.json.Decoder(dict[str, Any]).decode
_metadata_of = decoder_of(_Item)


class CustomKind(Kind):
    """A kind that the config describes."""

    has_pods: ClassVar[bool] = False

    def __init__(self, settings: CustomKindSettings) -> None:
        self.name = settings.kind
        self.resource = Resource(settings.group, settings.version, settings.plural)
        self._version = _compiled(settings.model_version, "model_version")
        self._wanted = _compiled(settings.wanted, "wanted")
        self._reached = _compiled(settings.reached, "reached")
        self._ready = _compiled(settings.ready, "ready") if settings.ready else None
        self._failure = _compiled(settings.failure, "failure") if settings.failure else None

    def read(self, body: bytes | msgspec.Raw) -> Service:
        """Decode an object; raises msgspec.DecodeError."""
        item = _decode(body)
        metadata = _metadata_of(body).metadata
        wanted, reached = _number(self._wanted(item)), _number(self._reached(item))
        version = _text(self._version(item))
        current = wanted is None or (reached is not None and reached >= wanted)
        ready = self._ready is None or _is_true(self._ready(item))
        return resource_service(
            self.name,
            metadata,
            generation=wanted,
            fingerprint=hashlib.blake2b((version or "").encode(), digest_size=12).hexdigest(),
            complete=current and ready,
            failure=self._failure_of(item) if current else None,
            version=version,
        )

    def _failure_of(self, item: Any) -> Failure | None:
        found = None if self._failure is None else self._failure(item)
        if not _is_true(found):
            return None
        return Failure("Failed", (_text(found) or "")[:1000])


def _number(found: Any) -> int | None:
    """Return a generation, which some controllers write as a text."""
    if isinstance(found, bool):
        return None
    if isinstance(found, int):
        return found
    return int(found) if isinstance(found, str) and found.isascii() and found.isdigit() else None


def _text(found: Any) -> str | None:
    if found is None or isinstance(found, dict | list):
        return None if not found else msgspec.json.encode(found, order="deterministic").decode()
    return str(found) or None


def _is_true(found: Any) -> bool:
    """Return whether something is there; conditions have the texts True, False and Unknown."""
    return bool(found) and found not in ("False", "false", "Unknown")
