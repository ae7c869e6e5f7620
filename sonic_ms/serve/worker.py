"""The process that makes videos: `python -m sonic_ms.serve.worker SETTINGS`, started by slots.py and by nothing else.

It keeps one model warm. Lines of JSON come in on stdin and go out on what was stdout; at the end of stdin, which is the
end of its server, it ends too. Each job runs in a thread of its own, so that one decodes and encodes while the graphs
of another run.

in:  {"do": "make", "job", "image", "audio", "output", "options", "names", "piece": [number, of how many] if not all}
     {"do": "join", "job", "pieces", "files", "audio", "output", "names"}, after the pieces of one video
     {"do": "cancel", "job"}
     {"do": "look", "look", "image", "audio" or null, "options", "names"}; names: {path: its sender's name}
out: {"is": "ready", "engine"} | {"is": "progress", "job", "stage", "done", "total", ...}
     {"is": "done", "job", ...} | {"is": "failed", "job", "code", "message", "status", "again"}
     {"is": "looked", "look", "size", "faces"} or {"frames", "notes"} or {"error"}
     {"is": "broken", "code", "message", "status"}, when there is no model
"""

import json
import os
import sys
import threading
import time
import traceback
from dataclasses import asdict

from sonic_ms.errors import Cancelled, EngineError, SonicError, code_of, http_status, of_the_host

EVERY = 0.4  # seconds between two reports of a stage's steps


class Lines:
    """The way out: whole lines, from any thread. What libraries print to stdout goes to stderr instead."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def say(self, what, **more):
        with self._lock:
            self._out.write(json.dumps({"is": what, **more}) + "\n")
            self._out.flush()


def fault(error, names=None):
    """{code, message, status} of an error for the job's row. An unexpected one keeps its details in the log. names:
    {path: name that messages say instead}."""
    error = of_the_host(error)
    if isinstance(error, SonicError):
        message = " ".join(str(error).split())
        for path, name in (names or {}).items():
            message = message.replace(path, name)
        return {"code": code_of(error), "message": message, "status": http_status(error)}
    traceback.print_exception(error)
    message = f"unexpected {type(error).__name__}; the service's log says more"
    return {"code": "internal_error", "message": message, "status": 500}


class Making:
    """One job in a thread."""

    def __init__(self, order, model, operator, lines):
        self.order, self.model, self.operator, self.lines = order, model, operator, lines
        self.cancelled = threading.Event()
        self._reported = 0.0
        threading.Thread(target=self._run, name=order["job"], daemon=True).start()

    def report(self, stage, done, total):
        now = time.monotonic()
        if done in (0, total) or now - self._reported >= EVERY:
            self._reported = now
            self.lines.say("progress", job=self.order["job"], stage=stage, done=done, total=total)

    def _run(self):
        job = self.order["job"]
        try:
            done = self._make()
        except Cancelled:
            self.lines.say("failed", job=job, code="canceled", message="canceled", status=409, again=False)
        except Exception as error:
            again = isinstance(error, EngineError) or not isinstance(error, SonicError)
            self.lines.say("failed", job=job, again=again, **fault(error, self.order["names"]))
        else:
            self.lines.say("done", job=job, **done)

    def _make(self):
        from sonic_ms.labels.save import save_piece, save_video

        order, started = self.order, time.monotonic()
        if order["do"] == "join":
            return self._join(started)
        self.report("preparing", 0, 1)
        video = self.model.generate(
            order["image"], order["audio"], report=self.report, cancelled=self.cancelled.is_set, **order["options"]
        )
        found = {}
        if order.get("piece"):
            found["pieces"] = asdict(save_piece(video, order["output"], *order["piece"]))
        else:
            self.report("frames", 0, video.n_frames)
            save_video(video, order["output"], overwrite=True, progress=False, operator=self.operator)
        return found | self._made(video.size, video.fps, video.n_frames, video.notes, video.labels, started)

    def _join(self, started):
        from sonic_ms.labels.save import Pieces, join_pieces

        order, pieces = self.order, Pieces(**self.order["pieces"])
        join_pieces(pieces, order["files"], order["audio"], order["output"], overwrite=True, operator=self.operator)
        return self._made(pieces.size, pieces.fps, pieces.frames, [], pieces, started)

    def _made(self, size, fps, frames, notes, labels, started):
        return {
            "width": size[0] // 2 * 2,
            "height": size[1] // 2 * 2,
            "fps": fps,
            "frames": frames,
            "notes": notes,
            "number": labels.number,
            "watermark": labels.watermark,
            "c2pa": self.operator.signer is not None,
            "work_seconds": time.monotonic() - started,
        }


def look(order, model, lines):
    """Answer what a photo shows, or whether a request will do, in a thread of its own."""
    try:
        if order["audio"] is None:
            size, faces = model.faces(order["image"])
            found = {"size": size, "faces": faces}
        else:
            frames, notes = model.check(order["image"], order["audio"], **order["options"])
            found = {"frames": frames, "notes": notes}
    except Exception as error:
        found = {"error": fault(error, order["names"])}
    lines.say("looked", look=order["look"], **found)


def main():
    settings = json.loads(sys.argv[1])
    lines = Lines()
    from sonic_ms.files.assets import fetch_face_nets
    from sonic_ms.serve.confine import confine, stand_back

    fetch_face_nets()  # while there is a network
    confine(settings)
    stand_back()
    try:
        from sonic_ms.labels.manifest import load_signer
        from sonic_ms.labels.save import Operator
        from sonic_ms.pipeline import load_model

        cert, key = settings["c2pa_cert"], settings["c2pa_key"]
        operator = Operator(settings["producer"], load_signer(cert, key) if cert else None)
        named = (settings[name] for name in ("model", "engine", "bundle", "precision", "delta"))
        model = load_model(*named)
    except Exception as error:
        lines.say("broken", **fault(error))
        return
    making = {}
    lines.say("ready", engine=model.generator.engine.info())
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] in ("make", "join"):
            making[order["job"]] = Making(order, model, operator, lines)
        elif order["do"] == "look":
            threading.Thread(target=look, args=(order, model, lines), daemon=True).start()
        elif order["job"] in making:
            making[order["job"]].cancelled.set()
    os._exit(0)  # the server is gone, or has no more use for us; threads in native code would hold up a plain return


if __name__ == "__main__":
    main()
