"""Requests that nobody would send, by the thousand: from the schema, and damaged forms. What answers 500 is a defect.

python -m tests.serve.fuzz --requests 20000
"""

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error

from sonic_ms.serve import process
from sonic_ms.serve.app import create_app
from sonic_ms.serve.settings import Settings

FAKE = (sys.executable, str(Path(__file__).parent / "fake_worker.py"))
FIELD = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
FORM = (
    FIELD % (b'input_reference"; filename="me.jpg', b"image")
    + FIELD % (b'audio_reference"; filename="me.wav', b"audio")
    + FIELD % (b"min_resolution", b"64")
    + b"--x--\r\n"
)


@contextlib.contextmanager
def served(folder):
    """(url, Service) of a server in a thread, with the worker that pretends."""
    process.WORKER = FAKE
    app = create_app(Settings(data=Path(folder)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started or not app.state.service.slots.ready:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", app.state.service
    finally:
        server.should_exit = True
        thread.join()


def from_the_schema(url, examples):
    """Call every operation `examples` times; how many calls."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    calls = 0

    def one(operation):
        @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy())
        def call(case):
            nonlocal calls
            calls += 1
            if case.path.endswith("/sync") or case.path.endswith("/events"):
                case.call_and_validate(checks=[not_a_server_error], timeout=10)
            else:
                case.call_and_validate(checks=[not_a_server_error])

        call()

    for result in schema.get_all_operations():
        one(result.ok())
    return calls


def damaged_forms(url, count, seed=0):
    """POST `count` damaged forms; the statuses that came, with how often."""
    chance, statuses = random.Random(seed), {}
    with httpx.Client(base_url=url, timeout=30) as client:
        for _ in range(count):
            body = bytearray(FORM)
            for _ in range(chance.randint(1, 6)):
                place = chance.randrange(len(body))
                kind = chance.randrange(4)
                if kind == 0:
                    body[place] = chance.randrange(256)
                elif kind == 1:
                    del body[place : place + chance.randint(1, 40)]
                elif kind == 2:
                    body[place:place] = chance.randbytes(chance.randint(1, 40))
                else:
                    body[place:place] = body[chance.randrange(len(body)) :][:60]
            path = chance.choice(("/v1/videos", "/v1/videos", "/v1/uploads", "/images"))
            answer = client.post(path, content=bytes(body), headers={"content-type": "multipart/form-data; boundary=x"})
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    return statuses


def left_behind(service):
    """Files that no row knows, once all jobs have ended."""
    while service.database.row("SELECT 1 FROM jobs WHERE state IN ('queued', 'in_progress')"):
        time.sleep(0.1)
    time.sleep(0.5)
    known = {row["id"] for row in service.database.rows("SELECT id FROM uploads")}
    rows = service.database.rows("SELECT result FROM jobs WHERE result IS NOT NULL")
    known |= {json.loads(row["result"])["file"] for row in rows}
    there = {path.name for path in service.folders.data.glob("tenants/*/*/*")}
    return (there - known) | {path.name for path in (service.folders.data / "work").iterdir()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder, "data")) as (url, service):
        operations = len(list(schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()))
        calls = from_the_schema(url, args.requests // 2 // operations)
        statuses = damaged_forms(url, args.requests - calls)
        left = left_behind(service)
    print(f"{calls} calls from the schema, damaged forms by status {statuses}, left behind {sorted(left)}")
    return 1 if left or any(status >= 500 for status in statuses) else 0


if __name__ == "__main__":
    sys.exit(main())
