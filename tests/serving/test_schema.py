"""The document that describes the interface, against the real server: what it promises is what is answered, and never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings

from tests.serving import world
from tests.serving.conftest import Served, settings_for
from tests.stores.ingest.world import declared
from windrow.serving.local_key import local_key
from windrow.serving.run import start
from windrow.stores.ingest.catalogue import record
from windrow.stores.metadata import Metadata

schemathesis = pytest.importorskip("schemathesis", reason="pip install 'schemathesis>=4.30,<5'")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bento")]

EXAMPLES = 40  # of each operation
EVERYTHING = [
    "GET /v1/churn",
    "GET /v1/fraud",
    "GET /v1/requests/{id}/explanation",
    "POST /v1/churn/batch",
    "POST /v1/churn/outcomes",
    "POST /v1/churn/predict",
    "POST /v1/fraud/batch",
    "POST /v1/fraud/outcomes",
    "POST /v1/fraud/predict",
    "POST /v1/ingest/card_limit",
    "POST /v1/ingest/card_limit_v1",
    "POST /v1/ingest/clicks",
    "POST /v1/ingest/payments",
]


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a compiled model, one without, and a stream that takes events."""
    settings = settings_for(tmp_path_factory.mktemp("schema"))
    world.publish(settings)
    world.release_fraud(settings)
    world.release_churn(settings)
    metadata = Metadata(settings.metadata)
    record(declared(), metadata)
    metadata.close()
    local_key(settings)
    with start(settings) as running:
        yield Served(settings, running)


def test_no_request_of_any_kind_is_answered_with_a_500_or_in_a_way_the_document_does_not_name(
    small_world: Served,
) -> None:
    status, document = small_world("GET", "/v1/openapi.json")
    assert status == 200
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=small_world.running.url)
    headers = {"Authorization": f"Bearer {local_key(small_world.settings)}"}
    operations = [found.ok() for found in schema.get_all_operations()]
    assert sorted(operation.label for operation in operations) == EVERYTHING
    for operation in operations:
        _try(operation, headers)


def _as_it_is(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


schemathesis.serializer("application/x-ndjson", "application/vnd.apache.arrow.stream")(_as_it_is)


def _try(operation: Any, headers: dict[str, str]) -> None:
    @given(operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def every_answer_is_as_described(case: Any) -> None:
        # A row of the right form may still be refused: its entity is unknown, its time is far off, the model takes no NaN.
        case.call_and_validate(headers=headers, excluded_checks=[checks.positive_data_acceptance])

    every_answer_is_as_described()
