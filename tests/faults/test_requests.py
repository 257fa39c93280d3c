"""Requests of any kind, made from the service's own description of itself: each gets an answer of that description.

``CASES`` says how many for each operation, see test_fuzz.py.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from serve.serving import Service, served
from test_train import fit
from training import embedded

from two_tower.search import Searcher
from two_tower.serve import Limits, Runs

schemathesis = pytest.importorskip("schemathesis", reason="needs pip install -e '.[fuzz]'")
for package in ("fastapi", "prometheus_client"):
    pytest.importorskip(package, reason="needs the service: pip install -e '.[serve]'")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def service(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("requests") / "run"
    fit(collection, path, "trainer.max_steps=2", "validation.bm25=false")
    with served(Runs([Searcher.load(embedded(path))]), Limits(body=4000, characters=300, k=20)) as running:
        yield running


@pytest.fixture(scope="module")
def description(service: Service) -> Any:  # noqa: ANN401
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


@pytest.mark.parametrize("operation", ["GET /search", "POST /search", "GET /health", "GET /runs", "GET /metrics"])
def test_it_is_answered_as_described(operation: str, description: Any) -> None:  # noqa: ANN401
    method, path = operation.split()

    @settings(
        max_examples=int(os.environ.get("CASES", 30)), deadline=10_000, derandomize="CASES" not in os.environ,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(description[path][method].as_strategy())
    def is_answered(case: Any) -> None:  # noqa: ANN401
        case.call_and_validate(
            excluded_checks=[positive_data_acceptance]
        )  # which runs there are, only the service knows

    is_answered()
