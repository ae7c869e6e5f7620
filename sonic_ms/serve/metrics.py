"""What Prometheus reads. No tenant is named in it."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from sonic_ms import __version__
from sonic_ms.serve import storage

JOB_SECONDS = (1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 14400)
HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """Counters of one server; queue, storage and the like are looked up when they are asked for."""

    def __init__(self, service):
        self.registry = CollectorRegistry()
        add = {"registry": self.registry}
        self.jobs = Counter("sonic_ms_jobs", "Jobs that ended, by how", ("model", "state"), **add)
        self.job_seconds = Histogram("sonic_ms_job_seconds", "From start to end of a job", ("model",),
                                     buckets=JOB_SECONDS, **add)  # fmt: skip
        self.wait = Histogram("sonic_ms_queue_wait_seconds", "From request to start of a job", ("model",),
                              buckets=JOB_SECONDS, **add)  # fmt: skip
        self.frames = Counter("sonic_ms_frames", "Frames of finished videos", ("model",), **add)
        self.restarts = Counter("sonic_ms_worker_restarts", "Worker processes that ended by themselves", **add)
        self.webhooks = Counter("sonic_ms_webhook_deliveries", "Attempts to deliver a webhook", ("result",), **add)
        self.requests = Counter("sonic_ms_http_requests", "Requests", ("route", "method", "code"), **add)
        self.seconds = Histogram("sonic_ms_http_request_seconds", "Time to the end of the answer", ("route", "method"),
                                 buckets=HTTP_SECONDS, **add)  # fmt: skip
        self.registry.register(_Now(service))

    def ended(self, job):
        self.jobs.labels(job.model, job.state).inc()
        if job.started_at and job.completed_at:
            self.job_seconds.labels(job.model).observe(job.completed_at - job.started_at)
        if job.result:
            self.frames.labels(job.model).inc(job.result["frames"])

    def text(self):
        return generate_latest(self.registry)


class _Now:
    """Gauges of the state in the database."""

    def __init__(self, service):
        self.service = service

    def collect(self):
        rows = self.service.database.rows(
            "SELECT state, count(*) AS n FROM jobs WHERE state IN ('queued', 'in_progress') GROUP BY state"
        )
        count = {row["state"]: row["n"] for row in rows}
        yield _gauge("sonic_ms_queue_depth", "Jobs that wait", count.get("queued", 0))
        yield _gauge("sonic_ms_jobs_running", "Jobs that are being made", count.get("in_progress", 0))
        yield _gauge(
            "sonic_ms_storage_bytes", "Bytes of uploads and results", sum(storage.used(self.service.database).values())
        )
        yield _gauge("sonic_ms_workers_ready", "Workers with a loaded model", self.service.slots.ready)
        info = GaugeMetricFamily("sonic_ms_build_info", "What runs here", labels=("version", "model"))
        info.add_metric((__version__, self.service.model), 1)
        yield info


def _gauge(name, text, value):
    return GaugeMetricFamily(name, text, value)
