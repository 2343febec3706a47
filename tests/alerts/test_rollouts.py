"""Rules on rollouts, in the part, with real messages and a real receiver over HTTP."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from monitor.messages import RESULT_TYPE, ModelEvent, cloud_event, encode
from tests.alerts.receiver import HttpReceiver
from tests.alerts.running import TOPIC, Running, result, running, webhook
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("soon")


async def test_a_failed_rollout_opens_an_incident_and_the_next_deployment_ends_it(
    tmp_path: Path,
) -> None:
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url, {"name": "rollout", "watch": "rollout"})
        async with running(tmp_path, config) as now:

            async def event(kind: str, **data: str) -> None:
                value = ModelEvent(
                    cluster="c", namespace="models", kind="Deployment", name="churn", cause="x",
                    **data,  # type: ignore[arg-type]
                )  # fmt: skip
                now.bus.publish(
                    "model-updates", value=encode(value), key="k", headers={"ce_type": kind}
                )

            failed = "org.recodex.monitor.rollout.failed"
            await event(failed, reason="ProgressDeadlineExceeded", message="timed out")
            await event(failed, reason="ProgressDeadlineExceeded")
            (opened,) = await receiver.until(1)
            assert opened.json["incident"]["title"] == "models/churn: the rollout failed"
            assert opened.json["incident"]["reason"] == "ProgressDeadlineExceeded: timed out"
            await event("dev.cdevents.service.upgraded")
            await receiver.until(2)
            assert receiver.events() == [
                ("opened", "models/churn"),
                ("resolved", "models/churn"),
            ]


async def test_events_in_structured_mode_are_judged_as_those_in_binary_mode(
    tmp_path: Path,
) -> None:
    def publish(now: Running, topic: str, kind: str, data: bytes) -> None:
        attributes = cloud_event(type=kind, source="/c", id=f"id-{kind}", time=time.time())
        event = {name.removeprefix("ce_"): text for name, text in attributes.items()}
        value = json.dumps(event | {"data": json.loads(data)}).encode()
        headers = {"content-type": "application/cloudevents+json; charset=UTF-8"}
        now.bus.publish(topic, value=b"{", key="k", headers=headers)
        now.bus.publish(topic, value=value, key="k", headers=headers)

    async with HttpReceiver() as receiver:
        config = webhook(
            receiver.url,
            {"name": "rollout", "watch": "rollout"},
            {"name": "down", "watch": "site", "failures": 1},
        )
        async with running(tmp_path, config) as now:
            churn = ModelEvent(
                cluster="c", namespace="models", kind="Deployment", name="churn", cause="x"
            )
            failed = "org.recodex.monitor.rollout.failed"
            publish(now, "model-updates", failed, encode(churn))
            publish(now, TOPIC, RESULT_TYPE, encode(result(1, time.time(), up=False)))
            # Together, or one after the other.
            await until(lambda: len(receiver.events()) >= 2)
            assert sorted(receiver.events()) == [("opened", "1"), ("opened", "models/churn")]


async def test_a_rollout_is_reported_once_though_its_events_are_published_again(
    tmp_path: Path,
) -> None:
    def publish(now: Running, *numbers: int) -> None:
        value = ModelEvent(
            cluster="c", namespace="models", kind="Deployment", name="churn", cause="x"
        )
        for number in numbers:
            failed = "org.recodex.monitor.rollout.failed"
            kind = failed if number % 2 else "dev.cdevents.service.upgraded"
            headers = cloud_event(type=kind, source="/c", id=f"id-{number}", time=number)
            now.bus.publish("model-updates", value=encode(value), key="k", headers=headers)

    told = [("opened", "models/churn"), ("resolved", "models/churn")]
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url, {"name": "rollout", "watch": "rollout"})
        async with running(tmp_path, config) as now:
            publish(now, 1, 2)
            await until(lambda: len(receiver.events()) >= 2)
            publish(now, 1, 2, 3)
            await until(lambda: len(receiver.events()) >= 3)
            assert sorted(receiver.events()) == sorted([*told, told[0]])
            # Until that is noted it would be sent again.
            await now.until(
                lambda found: all(notice.at for each in found for notice in each.notified)
            )
        # The cluster part was killed with this one, before it noted what it had published.
        async with running(tmp_path, config) as now:
            publish(now, 1, 2, 3, 4, 5)
            await until(lambda: len(receiver.events()) >= 5)
            assert sorted(receiver.events()) == sorted([*told, *told, told[0]])
            assert len(await now.incidents()) == 3
