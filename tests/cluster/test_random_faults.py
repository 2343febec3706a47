"""Random acts under random faults: the events are exactly the model's changes.

Each example plays acts on three services: workloads, custom resources or groups. Meanwhile
connections break, versions expire, the API refuses, the daemon restarts, and the cluster goes back
to a backup. Per service the events must be the model's, in its order, and no id may come twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from monitor.cluster.kinds import KINDS
from monitor.cluster.kinds.custom import CustomKind
from monitor.cluster.mapping import MappingSettings
from monitor.cluster.watch import Timing
from monitor.messages import ModelEvent
from tests.cluster.conftest import Lab, Run
from tests.cluster.group_play import GROUP
from tests.cluster.memory import MemoryCluster
from tests.cluster.model import PLAYS, Model
from tests.cluster.test_kinds import MODEL_SERVER
from tests.servers.kubernetes import Fault, KubernetesServer
from tests.waiting import until

IMPATIENT = Timing(
    watch_s=20.0, silence_s=0.3, pause_s=0.01, longest_pause_s=0.05, healthy_s=5.0, lasting_s=0.05
)

acts = st.tuples(
    st.sampled_from(["a", "a", "a", "b", "c"]),
    st.sampled_from(
        ["create"] * 3
        + ["set_image"] * 4
        + ["undo"] * 3
        + ["delete", "delete", "fail", "fail", "recover", "create_and_fail"]
        + ["set_environment", "scale", "flap", "annotate"]
    ),
    st.integers(0, 3),
)
breaks = st.sampled_from(["end", "reset", "truncate", "garbage", "error", "gone", "silence"])
passing = [429, 500, 503, 401, "reset", "truncate", "garbage"]
names = ("a", "b", "c")
a_kind = st.sampled_from(sorted(PLAYS))
every_kind = st.one_of(
    a_kind.map(lambda kind: dict.fromkeys(names, kind)),
    st.tuples(*(a_kind for _ in names)).map(lambda kinds: dict(zip(names, kinds, strict=True))),
)
CUSTOM = MODEL_SERVER.replace(failure="status.problem")
MAPPING = MappingSettings(group=f"label:{GROUP}", model=("name",))
WATCHED = sorted({play.plural for play in PLAYS.values()} - {""})
FACTS = ["pods", "replicasets", "replicationcontrollers"]
faults = st.one_of(
    # A watch that is refused is resumed; a list that is refused is made again ...
    st.builds(Fault, st.sampled_from(passing), st.just("watch"), st.sampled_from(WATCHED)),
    st.builds(
        Fault,
        st.sampled_from([*passing, 403, 404, 410]),
        st.just("list"),
        st.sampled_from(WATCHED),
        st.integers(1, 3),
    ),
    # ... and facts are asked for three times before events go without them.
    st.builds(
        Fault,
        st.sampled_from(passing),
        st.just("list"),
        st.sampled_from(FACTS),
        st.integers(1, 2),
    ),
)
# Acts that are not seen: only their end is, which may be that of a backup with more acts.
unseen = st.tuples(st.booleans(), st.lists(acts, max_size=4))
seen = st.tuples(st.just("acts"), st.lists(acts, min_size=1, max_size=4))
commands = st.lists(
    st.one_of(
        seen,
        seen,
        st.tuples(st.just("break"), breaks),
        st.tuples(st.just("fault"), faults),
        st.tuples(st.just("backup"), st.none()),
        st.tuples(st.just("backup"), st.none()),
        st.tuples(st.just("gap"), unseen),
        st.tuples(st.just("restart"), unseen),
    ),
    min_size=3,
    max_size=10,
)
Kinds = Mapping[str, str]
Script = Sequence[tuple[str, Any]]
Outcome = tuple[str, str, str | None]


# Back to the template of before, and then to a backup that has it under a lower generation.
BACK_TWICE: Script = [
    ("acts", [("a", "create", 1)]),
    ("backup", None),
    ("acts", [("a", "set_image", 2), ("a", "undo", 0)]),
    ("gap", (True, [])),
    ("acts", [("a", "set_image", 2)]),
]
# The members of a group go one by one, with former ones last.
ALL_GONE: Script = [
    ("acts", [("a", "create", 1), ("a", "set_image", 2), ("a", "set_image", 3), ("a", "undo", 0)]),
    ("acts", [("a", "delete", 0)]),
]


@given(every_kind, commands)
@example(dict.fromkeys(names, "group of Deployments"), ALL_GONE)
@example(dict.fromkeys(names, "StatefulSet"), BACK_TWICE)
@example(dict.fromkeys(names, "InferenceService"), BACK_TWICE)
@settings(max_examples=500, deadline=None)
def test_without_a_network_the_events_are_the_models(kinds: Kinds, script: Script) -> None:
    model, custom = Model(kinds), CustomKind(CUSTOM)
    cluster = MemoryCluster(*sorted(watched_of(kinds)), custom=custom, mapping=MAPPING)
    cluster.start()
    backup = model.backup(), cluster.backup()
    for what, value in script:
        back, played = value if what in {"gap", "restart"} else (False, value)
        if what in {"gap", "restart"}:
            cluster.stop()
        if back:
            model.restore(backup[0])
            cluster.restore(backup[1])
        if what in {"acts", "gap", "restart"}:
            for act in played:
                steps = model.act(*act)
                if steps is not None:
                    cluster.play(steps)
                if what == "acts":
                    model.look()
        model.look()
        if what == "backup":
            backup = model.backup(), cluster.backup()
        elif what == "fault" and value.plural in FACTS:
            cluster.api.failing = value.times
        elif what == "gap":
            cluster.up = True
            cluster.relist()
        elif what == "restart":
            cluster.start()
    told: dict[str, list[Outcome]] = {name: [] for name in model.expected}
    for event in cluster.events:
        told[event.data.name].append(outcome(event.type.rpartition(".")[2], event.data))
    assert told == model.expected
    assert len({event.id for event in cluster.events}) == len(cluster.events)


def watched_of(kinds: Kinds) -> set[str]:
    """Return the kinds of the API; groups are made of Deployments."""
    return {kind if kind in {*KINDS, CUSTOM.kind} else "Deployment" for kind in kinds.values()}


async def caught_up(server: KubernetesServer, part: Run) -> None:
    """Wait until every watch is where the server is; a bookmark says so where nothing changes."""

    def seen() -> bool:
        session = part.part._session
        return session is not None and all(
            watch._version == str(server.version) for watch in session.watches
        )

    await until(seen)


@contextlib.asynccontextmanager
async def relisted(
    server: KubernetesServer, part: Run, *, again: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """Wait after the block for lists of all kinds that are newer than it: only the end was seen.

    ``again`` is called until the lists come.
    """
    await caught_up(server, part)
    session = part.part._session
    assert session is not None
    plurals = [watch.scope.path.rpartition("/")[2] for watch in session.watches]
    lists = {plural: len(server.requests_of("list", plural)) for plural in plurals}
    yield

    def listed() -> bool:
        if all(len(server.requests_of("list", plural)) > lists[plural] for plural in plurals):
            return True
        again()
        return False

    await until(listed)
    await caught_up(server, part)


def by_name(part: Run) -> dict[str, list[Outcome]]:
    told: dict[str, list[Outcome]] = {}
    for (name, type_, _), event in zip(part.told, part.events, strict=True):
        told.setdefault(name, []).append(outcome(type_, event))
    return told


def outcome(type_: str, event: ModelEvent) -> Outcome:
    """Return type, cause and what runs now: an image, or the version where there is none."""
    if not event.images and type_ != "removed":
        return type_, event.cause, event.version
    after = next((image.after for image in event.images), None)
    return type_, event.cause, after and after.partition("@")[0]


async def follow(lab: Lab, kinds: Kinds, script: Script) -> None:
    model, server = Model(kinds), lab.server
    rest = list(script)
    watched = watched_of(kinds)
    config: dict[str, Any] = {
        "kinds": tuple(sorted(watched - {CUSTOM.kind})),
        "custom_kinds": (CUSTOM,) if CUSTOM.kind in watched else (),
        "mapping": MAPPING,
        "timing": IMPATIENT,
    }
    backup = model.backup(), server.backup()

    def unseen(back: bool, acts: Sequence[tuple[str, str, int]]) -> None:
        if back:
            model.restore(backup[0])
            server.restore(backup[1])
        for act in acts:
            lab.play(model.act(*act) or ())
        model.look()

    first = True
    while rest or first:
        async with lab.run(**config) as part:
            # Before the first list, what happens is part of what is found by it.
            await part.healthy()
            await caught_up(server, part)
            first = False
            meanwhile = None
            while rest and meanwhile is None:
                what, value = rest.pop(0)
                match what:
                    case "acts":
                        for act in value:
                            lab.play(model.act(*act) or ())
                            model.look()
                    case "backup":
                        backup = model.backup(), server.backup()
                    case "break" if value == "gone":
                        # Between two streams there is none to break.
                        async with relisted(
                            server, part, again=lambda: server.break_watches("gone")
                        ):
                            pass
                    case "break":
                        server.break_watches(value)
                    case "fault" if not any(map(server.pending, {value.plural, *FACTS})):
                        server.fail(dataclasses.replace(value))
                    case "gap":
                        # A restored server may have reached our version again with other writes.
                        async with relisted(
                            server, part, again=lambda: server.break_watches("gone")
                        ):
                            server.stop()
                            unseen(*value)
                            server.compact()
                            server.start()
                    case "restart":
                        meanwhile = value
            await caught_up(server, part)
            await part.count(model.count)
            expected = {name: events for name, events in model.expected.items() if events}
            assert by_name(part) == expected
            assert len(set(part.ids)) == len(part.ids)
        unseen(*(meanwhile or (False, ())))
    async with lab.run(**config) as part:
        await part.healthy()
        await part.count(model.count)
        assert by_name(part) == {name: events for name, events in model.expected.items() if events}


@pytest.mark.integration_test
@pytest.mark.timeout(300)
@given(every_kind, commands)
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes a server each time
)
async def test_under_faults_the_events_are_the_models(kinds: Kinds, script: Script) -> None:
    server = KubernetesServer()
    server.bookmark_every_s = 0.1
    try:
        with tempfile.TemporaryDirectory() as directory:
            await follow(Lab(server, Path(directory)), kinds, script)
    finally:
        server.stop()
