from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.serving import world
from tests.serving.conftest import Caller, eventually
from tests.serving.world import GOOD
from windrow.errors import SettingsError
from windrow.serving.spans import ENDPOINT, Spans, open_spans

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_request_has_a_span_for_each_stage_under_the_trace_of_its_caller(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    fresh.worker.plane.spans = Spans(provider)
    parent = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())
    answer = fresh("POST", "/v1/fraud/predict", GOOD, headers=[*fresh.signed, parent])
    *stages, whole = exporter.get_finished_spans()
    assert [span.name for span in stages] == ["validate", "features", "model", "log", "answer"]
    assert whole.name == "predict fraud"
    assert dict(whole.attributes or {}) == {
        "windrow.request_id": answer.json["request_id"],
        "windrow.service": "fraud",
        "windrow.release": "fraud-1",
    }
    assert whole.parent is not None
    assert (f"{whole.parent.trace_id:032x}", f"{whole.parent.span_id:016x}") == (TRACE, SPAN)
    for span in stages:
        assert span.parent == whole.get_span_context()
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time  # type: ignore[operator]


@pytest.mark.parametrize("header", [b"", b"nonsense", b"\xff\xfe", b"00-0-0-0"])
def test_a_broken_trace_header_is_as_none(fresh: Caller, header: bytes) -> None:
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    fresh.worker.plane.spans = Spans(provider)
    answer = fresh("POST", "/v1/fraud/predict", GOOD, headers=[*fresh.signed, (b"traceparent", header)])
    assert answer.status == 200
    assert exporter.get_finished_spans()[-1].parent is None


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, windrow.serving.asgi; from windrow.serving.spans import open_spans; assert open_spans({}) is None; "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(find_spec("opentelemetry.exporter") is not None, reason="the exporter is installed")
def test_an_endpoint_without_its_exporter_is_refused_with_what_to_install() -> None:
    with pytest.raises(SettingsError, match="Next: pip install opentelemetry-exporter-otlp-proto-http, or unset OTEL_"):
        open_spans({ENDPOINT: "http://127.0.0.1:4318"})
