"""What Prometheus and the log are told, and that the dashboard asks for nothing that is not there."""

import json
import logging
import re
from pathlib import Path

from sonic_ms.serve.logs import Lines
from tests.serve.test_webhooks import Receiver, webhook

DASHBOARD = Path(__file__).parents[2] / "configs" / "grafana" / "serve.json"


def test_every_query_of_the_dashboard_finds_its_metric(start, monkeypatch):
    monkeypatch.setattr("sonic_ms.serve.webhooks.LOOK", 0.05)
    with Receiver(200) as receiver, start(private_webhooks=True) as client:
        name = client.make(webhook_url=receiver.url).json()["id"]
        webhook(client, name, "delivered")
        client.until(client.make(3).json()["id"], "failed")
        answer = client.get("/metrics")
    there = {}
    for metric, labels in re.findall(r"^(\w+)(?:\{(.*?)\})? ", answer.text, re.M):
        there.setdefault(metric, set()).update(re.findall(r'(\w+)="', labels))
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= 12
    for query in queries:
        (metric,) = set(re.findall(r"sonic_ms_\w+", query))
        assert metric in there, query
        for labels in re.findall(r"by \((.*?)\)", query):
            assert set(labels.split(", ")) <= there[metric], query
    assert not any("tenant" in labels for labels in there.values())
    for line in ('sonic_ms_jobs_total{model="sonic-edge",state="completed"} 1.0',
                 'sonic_ms_jobs_total{model="sonic-edge",state="failed"} 1.0',
                 'sonic_ms_frames_total{model="sonic-edge"} 50.0', "sonic_ms_queue_depth 0.0"):  # fmt: skip
        assert line in answer.text


def test_log_lines_are_json_with_the_ids_of_request_and_job(client, caplog):
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    with caplog.at_level(logging.INFO, "sonic_ms.serve"):
        answer = client.make(headers={"X-Request-Id": "mine", "traceparent": trace})
        client.until(answer.json()["id"], "completed")
    lines = [json.loads(Lines().format(record)) for record in caplog.records]
    ours = [line for line in lines if line.get("job_id") == answer.json()["id"]]
    assert {line["event"] for line in ours} == {"accepted", "started", "ended"}
    assert {(line["request_id"], line["trace_id"]) for line in ours} == {("mine", "a" * 32)}
    assert any(line.get("route") == "/v1/videos" and line["status"] == 202 for line in lines)
    assert not any("image" in json.dumps(line) for line in ours)  # nothing of the contents
