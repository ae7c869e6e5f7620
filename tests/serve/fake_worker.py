"""Speaks sonic_ms/serve/worker.py's language and makes nothing, so that a test can say what becomes of a job.

The seed of a job says what happens: 1 the process dies by SIGKILL, 2 it hears nothing any more, 3 an error of the face,
4 a slow job that can be cancelled, 5 an engine's error, 6 two seconds of work, anything else a small file at once.
"""

import json
import os
import signal
import sys
import threading
import time

lock, cancelled = threading.Lock(), set()


def say(what, **more):
    with lock:
        print(json.dumps({"is": what, **more}), flush=True)


def make(order):
    job, seed = order["job"], order["options"].get("seed", 0)
    say("progress", job=job, stage="frames", done=0, total=50)
    if seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 2:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        time.sleep(600)
    if seed in (3, 5):
        code, again = (("face_error", False), ("engine_error", True))[seed == 5]
        return say("failed", job=job, code=code, message="no face found in the photo", status=422, again=again)
    for frame in range(600 if seed == 4 else 40 if seed == 6 else 0):
        time.sleep(0.05)
        say("progress", job=job, stage="frames", done=frame % 50, total=50)
        if job in cancelled:
            return say("failed", job=job, code="canceled", message="canceled", status=409, again=False)
    with open(order["output"], "wb") as file:
        file.write(job.encode() * 100)
    say("progress", job=job, stage="frames", done=50, total=50)
    say("done", job=job, width=64, height=64, fps=25, frames=50, notes=[], number="0" * 32, watermark=True, c2pa=False,
        work_seconds=0.5)  # fmt: skip


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say("ready", engine={"engine": "none"})
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "make":
            if order["options"].get("seed") == 2:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Thread(target=make, args=(order,), daemon=True).start()
        elif order["do"] == "cancel":
            cancelled.add(order["job"])
        elif order["audio"] is None:
            say("looked", look=order["look"], size=[64, 64], faces=[[1, 2, 30, 40], [40, 2, 9, 9]])
        else:
            say("looked", look=order["look"], frames=50, notes=[])
    os._exit(0)
