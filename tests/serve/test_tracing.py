"""Spans of a request and of its job, as a collector gets them."""

import http.server
import subprocess
import sys
import threading
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sonic_ms.errors import EngineError
from sonic_ms.serve.tracing import Silent, open_tracing

pytestmark = [pytest.mark.slow]

TRACE, PARENT = "a" * 32, "b" * 16
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps what it decodes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Taking)
        self.spans, self.resources = [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Taking(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        for one in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append({a.key: a.value.string_value for a in one.resource.attributes})
            self.server.spans += [span for scope in one.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector(monkeypatch):
    with Collector() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def values(span):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_job_hangs_under_its_request_and_that_under_the_clients_span(start, collector):
    with start() as client:
        done = client.make(headers=HEADERS).json()["id"]
        client.until(done, "completed")
        failed = client.make(3).json()["id"]
        client.until(failed, "failed")
    requests = {span.span_id: span for span in collector.spans if span.name == "POST /v1/videos"}
    jobs = {values(span)["sonic_ms.job"]: span for span in collector.spans if span.name == "job"}
    assert set(jobs) == {done, failed} and len(requests) == 2
    request = requests[jobs[done].parent_span_id]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert jobs[done].trace_id == request.trace_id
    assert values(request) == {"http.request.method": "POST", "http.route": "/v1/videos",
                               "http.response.status_code": 202}  # fmt: skip
    assert requests[jobs[failed].parent_span_id].trace_id.hex() != TRACE  # a trace of its own, that begins here
    assert (jobs[done].status.code, jobs[failed].status.code) == (0, 2)
    assert values(jobs[done])["sonic_ms.frames"] == 50
    assert jobs[done].end_time_unix_nano > jobs[done].start_time_unix_nano >= request.start_time_unix_nano
    assert collector.resources[0]["service.name"] == "sonic_ms"
    assert not [span for span in collector.spans if "readyz" in span.name]  # asked all the time, above too


def test_a_collector_that_is_gone_holds_nothing_up(start, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with start() as client:
        client.until(client.make().json()["id"], "completed")
        ending = time.monotonic()
    assert time.monotonic() - ending < 8


def test_without_a_collector_nothing_is_imported(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert isinstance(open_tracing(), Silent)
    program = "import sys, sonic_ms.serve.service, sonic_ms.serve.worker; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "sonic_ms.serve.tracing" in loaded and "opentelemetry" not in loaded


def test_without_the_extra_one_line_says_so(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(EngineError, match=r"pip install 'sonic_ms\[otlp\]'"):
        open_tracing()
