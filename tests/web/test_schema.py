"""The API against its own OpenAPI document: generated requests find no server error and no
answer that the document does not describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.waiting import LIMIT_S
from tests.web.whole import Whole, whole

pytestmark = pytest.mark.integration_test

EXAMPLES = 25
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
# A drop in the middle would leave nothing to be asked about; a mock may delay for a minute.
LEFT_OUT = {"/db/init", "/website_mock"}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole() as running:
        for number in (1, 2):
            body = {"id": number, "name": f"job {number}", **running.mock()}
            assert running.request("POST", "/job", json=body).status_code == 201
        running.wait_for_state(1, "up")
        running.wait_for_state(2, "up")
        yield running


def operations(daemon: Whole) -> list[Any]:
    schema: Any = schemathesis.openapi.from_dict(daemon.get("/openapi.json"))
    schema.config.update(base_url=daemon.url)
    found = [result.ok() for result in schema.get_all_operations()]
    return [operation for operation in found if operation.path not in LEFT_OUT]


def test_no_request_gets_a_server_error_or_an_answer_outside_the_document(daemon: Whole) -> None:
    tried = operations(daemon)
    assert len(tried) > 15
    for operation in tried:
        conforming(operation)()


def conforming(operation: Any) -> Callable[[], None]:
    """Return a test of one operation, with as many requests as the budget allows."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def conform(case: Any) -> None:
        answer = case.call(timeout=LIMIT_S)
        case.validate_response(answer, checks=CHECKS)

    return conform


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/metrics", "GET, HEAD"),
        ("PATCH", "/job", "GET, HEAD, POST"),
        ("OPTIONS", "/job/1", "GET, HEAD, PUT, PATCH, DELETE"),
        ("GET", "/job/1/stop", "POST"),
        ("DELETE", "/", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_there_is_405_and_says_which_are(
    daemon: Whole, method: str, path: str, allowed: str
) -> None:
    answer = requests.request(method, daemon.url + path, timeout=LIMIT_S)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
