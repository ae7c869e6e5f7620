"""One long video over several workers: each makes a piece, then one of them joins the pieces.

The frames are those that one worker would have made. A piece that fails ends the others: the video is made whole, or
not at all.
"""

import queue
from pathlib import Path

from sonic_ms.errors import EngineError, OutputError, UsageError
from sonic_ms.files.temporary import Temporary
from sonic_ms.serve.process import Worker, arguments_of, kind_of

MOST = 64  # pieces of a video


class Split:
    """A video in the making. job: its name in messages. make: the order of the whole, as worker.py takes it. workers:
    who make the pieces. folder: of the files between."""

    def __init__(self, job, make, workers, folder):
        self.job, self.make, self.workers = job, make, workers
        self.files = [str(Path(folder) / f"piece{number}.mp4") for number in range(len(workers))]
        self._frames, self._total, self._made, self.joining = [0] * len(workers), 0, [], False

    def start(self):
        for number, worker in enumerate(self.workers):
            piece = {"piece": [number, len(self.workers)], "output": self.files[number]}
            worker.tell(do="make", job=self.job, **{**self.make, **piece})

    def hear(self, worker, message):
        """What a message of one of the workers says of the whole: a message of the same kind, or None."""
        if self.joining or message["is"] == "failed":
            return message
        if message["is"] == "done":
            self._made.append(message)
            if len(self._made) == len(self.workers):
                self._join()
            return None
        if message["stage"] != "frames":
            return message if worker is self.workers[0] else None
        if message["total"] == 1:  # the first frame of all, by which each piece is marked
            return None
        number = self.workers.index(worker)
        self._frames[number] = message["done"]
        self._total = max(self._total, message["total"] * len(self.workers))
        return {**message, "done": min(sum(self._frames), self._total), "total": self._total}

    def cancel(self):
        for worker in self.workers:
            worker.tell(do="cancel", job=self.job)

    def _join(self):
        self.joining = True
        parts = {name: self.make[name] for name in ("audio", "output", "names")}
        self.workers[0].tell(
            do="join", job=self.job, pieces=self._made[0]["pieces"], files=self.files, **parts,
        )  # fmt: skip

    def result(self, joined):
        """The "done" of the whole: notes of the pieces, and the seconds that all worked."""
        notes = self._made[0]["notes"]
        seconds = sum(one["work_seconds"] for one in [*self._made, joined])
        return {**joined, "notes": notes, "work_seconds": seconds}


def make_in_pieces(settings, count, image, audio, output, options, report, threads=1):
    """Make a video with `count` processes on this machine, each with a model of its own; (what the workers say of it,
    what they say of their engine).

    output: .mp4, replaced if it is there. report: called with (stage, done, total). threads: of each process.
    Raises what the work raises; EngineError when a process ends.
    """
    if not 1 <= count <= MOST:
        raise UsageError(f"--pieces is {count}; expected 1 to {MOST}")
    inbox, workers = queue.Queue(), []
    output = Path(output).absolute()
    try:
        with Temporary(output.parent, is_folder=True) as folder:
            for _ in range(count):
                workers.append(Worker(arguments_of(settings), inbox, threads))
            engine = _wait_ready(inbox, workers)
            names = {str(Path(image).absolute()): str(image), str(Path(audio).absolute()): str(audio)}
            make = {"image": str(Path(image).absolute()), "audio": str(Path(audio).absolute()), "output": str(output),
                    "options": options, "names": names}  # fmt: skip
            split = Split("video", make, workers, folder)
            split.start()
            while True:
                message = split.hear(*_next(inbox))
                if message and message["is"] == "progress":
                    report(message["stage"], message["done"], message["total"])
                elif message and message["is"] == "done":
                    return split.result(message), engine
    except OSError as error:
        raise OutputError(f"output {output}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        for worker in workers:
            worker.end()


def _wait_ready(inbox, workers):
    waiting = set(workers)
    while waiting:
        worker, message = _next(inbox)
        waiting.discard(worker)
    return message["engine"]


def _next(inbox):
    """(worker, its message); raises what a worker failed of."""
    worker, message = inbox.get()
    if message is None:
        raise EngineError(f"{worker.ended} before its piece was done; there may be too little memory for so many")
    if message["is"] in ("failed", "broken"):
        raise kind_of(message["code"])(message["message"])
    return worker, message
