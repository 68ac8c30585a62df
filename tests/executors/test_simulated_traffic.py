"""Property-based traffic, made by Schemathesis from each document's own schemas, against the simulator over HTTP."""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from executors.simulation.server import serve
from tests.executors.documents import toolalpaca

BUDGET = {GenerationMode.POSITIVE: 3, GenerationMode.NEGATIVE: 1}
"""Requests to each operation: such as its schema allows, and such as break it."""


@pytest.fixture(scope="module")
def traffic() -> Iterator[dict[GenerationMode, Counter[tuple[str, int]]]]:
    """By kind of request, how often each operation gave each status."""
    documents = {f"api{at}": text for at, text in enumerate(toolalpaca().values())}
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    seen: dict[GenerationMode, Counter[tuple[str, int]]] = {mode: Counter() for mode in BUDGET}
    with serve(documents) as listening, requests.Session() as session:
        for name in documents:
            address = f"{listening.url}/{name}"
            read: Any = schemathesis.openapi.from_url(f"{address}/openapi.json").get_all_operations()
            for operation in (found.ok() for found in read):
                for mode in BUDGET:
                    for status in statuses(operation, mode, address, session):
                        seen[mode][f"{name} {operation.label}", status] += 1
        yield seen


def statuses(operation: Any, mode: GenerationMode, address: str, session: requests.Session) -> list[int]:
    """What the simulator answers to the budget's requests; none where no request can break the schema."""
    came: list[int] = []

    @settings(
        max_examples=BUDGET[mode],
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def sent(case: Any) -> None:
        came.append(case.call(base_url=address, session=session, timeout=60).status_code)

    try:
        sent()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, f"{operation.label}: no request fits its schema"
    return came


def test_the_21_documents_survive_traffic_from_their_own_schemas_without_a_500(traffic):
    failed = [place for seen in traffic.values() for place in seen if place[1] >= 500]
    assert not failed
    assert sum(traffic[GenerationMode.POSITIVE].values()) > 200
    assert sum(traffic[GenerationMode.NEGATIVE].values()) > 50


def test_every_operation_does_as_it_is_asked_at_least_once(traffic):
    operations = {name for name, _ in traffic[GenerationMode.POSITIVE]}
    served = {name for name, status in traffic[GenerationMode.POSITIVE] if 200 <= status < 300}
    assert len(operations) == 94
    assert operations == served


def test_most_requests_that_break_the_schema_are_refused(traffic):
    seen = traffic[GenerationMode.NEGATIVE]
    refused = sum(count for (_, status), count in seen.items() if 400 <= status < 500)
    assert refused > 0.6 * sum(seen.values())
