"""OpenTelemetry spans of predictions: one for each request and one for each of its stages, under the caller's own trace.

Nothing of OpenTelemetry is imported unless an endpoint is named for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from windrow.errors import SettingsError
from windrow.serving.stages import STAGES

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_EXPORTER = "opentelemetry-exporter-otlp-proto-http"
_PARENT = b"traceparent"
_MOST = 4096  # callers' traces that are held for requests on their way


class Spans:
    """Makes spans of requests that were answered; for the event loop's thread alone.

    Parameters
    ----------
    provider
        OpenTelemetry's tracer provider; what it exports, and how much of it, is its own matter.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider, self._tracer = provider, provider.get_tracer("windrow")
        self._read = TraceContextTextMapPropagator().extract
        self._parents: dict[str, str] = {}

    def come(self, request_id: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember the trace of a request's caller, if it names one."""
        for name, value in headers:
            if name == _PARENT and len(self._parents) < _MOST:
                self._parents[request_id] = value.decode("latin-1")

    def gone(self, request_id: str) -> None:
        """Forget a request, answered or not."""
        self._parents.pop(request_id, None)

    def answered(self, request_id: str, service: str, release: str, moments: Sequence[tuple[int, int]]) -> None:
        """Make the spans of a request from the begin and end of each of `STAGES`, nanoseconds of the performance counter."""
        offset = time.time_ns() - time.perf_counter_ns()
        parent = self._parents.get(request_id)
        context = None if parent is None else self._read({_PARENT.decode(): parent})
        facts = {"windrow.request_id": request_id, "windrow.service": service, "windrow.release": release}
        whole = self._tracer.start_span(
            f"predict {service}", context, attributes=facts, start_time=moments[0][0] + offset
        )
        inside = self._inside(whole)
        for stage, (begin, end) in zip(STAGES, moments, strict=True):
            self._tracer.start_span(stage, inside, start_time=begin + offset).end(end + offset)
        whole.end(moments[-1][1] + offset)

    def _inside(self, span: Any) -> Any:
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(span)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def open_spans(environ: Mapping[str, str]) -> Spans | None:
    """Return what sends spans where OpenTelemetry's own variables say, None where they name no endpoint.

    Raises
    ------
    SettingsError
        If an endpoint is named and its exporter is not installed.
    """
    if not environ.get(ENDPOINT):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter  # type: ignore[import-not-found]
    except ImportError as error:
        raise SettingsError(
            f"{ENDPOINT} is set, and what sends spans there is not installed",
            next_step=f"pip install {_EXPORTER}, or unset {ENDPOINT}",
        ) from error
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME", "windrow")}))
    provider.add_span_processor(BatchSpanProcessor(trace_exporter.OTLPSpanExporter()))
    return Spans(provider)
