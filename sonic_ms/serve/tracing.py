"""Spans of requests and jobs, sent by OTLP over HTTP to where OTEL_EXPORTER_OTLP_ENDPOINT says. Without it nothing is
sent and nothing imported: OpenTelemetry's protobuf must never come before MindSpore, so workers have none of this.
"""

import os

from sonic_ms import __version__
from sonic_ms.errors import EngineError

PLACES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds, by machines
AT_THE_END = 2000  # milliseconds for spans that are still here when the server ends


class Silent:
    """What stands in for Tracing when no collector is named: a trace that a client began is only handed on."""

    def begin(self, path, headers):
        """(span or None, traceparent of what the request leads to or None) of a request that comes in. headers: {small
        name: value}."""
        return None, headers.get("traceparent")

    def end(self, span, method, route, status):
        """A request was answered."""

    def job(self, job):
        """A jobs.Job has ended."""

    def stop(self):
        """Send what is left."""


def open_tracing():
    """Tracing where the environment names a collector, else Silent. EngineError without the extra."""
    if not any(os.environ.get(name) for name in PLACES):
        return Silent()
    try:
        return Tracing()
    except ImportError as error:
        raise EngineError(
            f"{' or '.join(PLACES)} is set, but spans cannot be sent ({error}); pip install 'sonic_ms[otlp]'"
        ) from error


class Tracing:
    """The same as Silent, with spans. Addresses, headers and sampling are OpenTelemetry's own OTEL_ variables."""

    def __init__(self):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME") or "sonic_ms"
        resource = Resource.create({"service.name": name, "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("sonic_ms.serve", __version__)
        self._context = TraceContextTextMapPropagator()
        self._server, self._failed = SpanKind.SERVER, Status(StatusCode.ERROR)

    def begin(self, path, headers):
        if path in QUIET:
            return None, headers.get("traceparent")
        span = self._tracer.start_span("request", self._context.extract(headers), self._server)
        context = span.get_span_context()
        return span, f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, span, method, route, status):
        if span is None:
            return
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if status >= 500 or not status:
            span.set_status(self._failed)
        span.end()

    def job(self, job):
        parent = self._context.extract({"traceparent": job.extra.get("traceparent") or ""})
        started = job.started_at or job.completed_at  # one that was cancelled before it began
        span = self._tracer.start_span("job", parent, start_time=_nanoseconds(started))
        span.set_attributes({"sonic_ms.job": job.id, "sonic_ms.model": job.model, "sonic_ms.state": job.state,
                             "sonic_ms.attempt": job.attempt, "sonic_ms.frames": job.frames_done,
                             "sonic_ms.queue_wait_seconds": started - job.created_at})  # fmt: skip
        if job.state == "failed":
            span.set_status(self._failed)
        span.end(_nanoseconds(job.completed_at))

    def stop(self):
        self._provider.force_flush(AT_THE_END)
        self._provider.shutdown()


def _nanoseconds(seconds):
    return int(seconds * 1e9)
