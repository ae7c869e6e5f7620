"""What runs on another machine in place of a server's worker process: that process, and the files of its jobs.

It gets the photo and the recording out of the store, and puts the video there: messages are all that goes between it
and the server. Nothing of how they go is here; actors.py makes a Ray actor of it.
"""

import os
import queue
import tempfile
import threading
import time

from sonic_ms import __version__
from sonic_ms.files.temporary import Temporary
from sonic_ms.serve.files import Folders, open_files
from sonic_ms.serve.process import Worker
from sonic_ms.serve.transfers import VIDEO, Move, fetch_inputs, store_result

SILENCE = 30.0  # seconds without a question from the server after which it counts as gone
LISTEN = 5.0  # seconds that a question waits for a message


class Remote:
    """A worker process on this machine, told what to do by a server elsewhere. Its methods are called from any thread.

    arguments: as process.arguments_of gives them. address: of the file store. threads: as of process.Worker.
    """

    def __init__(self, arguments, address, threads):
        self._messages, self._inbox = queue.Queue(), queue.Queue()
        self._files = open_files(address)
        self._temporary = Temporary(tempfile.gettempdir(), is_folder=True)
        self._folders = Folders(self._temporary.path)
        self._jobs, self._heard = {}, time.monotonic()  # id -> (Job, Move of its files or None)
        self._worker = Worker(arguments, self._inbox, threads)
        threading.Thread(target=self._run, daemon=True, name="remote").start()

    def hello(self):
        """Who this is, for the server to compare."""
        return {"version": __version__, "host": os.uname().nodename, "pid": os.getpid(),
                "worker": self._worker.process.pid, "chips": os.environ.get("ASCEND_RT_VISIBLE_DEVICES")}  # fmt: skip

    def order(self, order):
        """As worker.py takes them, but that "make" has the Job as `of`, and "look" the `keys` of its files."""
        self._inbox.put((None, order))

    def listen(self, patience=LISTEN):
        """Messages since the last call, as worker.py gives them; waits for one. The last of all is "ended"."""
        self._heard = time.monotonic()
        messages = []
        try:
            messages.append(self._messages.get(timeout=patience))
            while True:
                messages.append(self._messages.get_nowait())
        except queue.Empty:
            return messages

    def end(self):
        """End the process and remove its files."""
        self._worker.end()
        self._temporary.remove()

    def _run(self):
        while time.monotonic() - self._heard < SILENCE:
            try:
                sender, message = self._inbox.get(timeout=1.0)
            except queue.Empty:
                continue
            if sender is None:
                getattr(self, f"_{message['do']}")(**message)
            elif isinstance(sender, Move):
                self._moved(sender, message)
            elif message is None:
                return self._messages.put({"is": "ended", "how": self._worker.ended})
            elif message["is"] == "done":
                self._store(message)
            else:
                self._messages.put(message)
        self.end()
        os._exit(1)  # an actor that nobody asks anything holds a processor or a chip

    def _make(self, do, of, options, names):
        job = self._jobs[of.id] = of
        make = {"do": do, "job": job.id, "options": options}

        def fetched():
            given = fetch_inputs(self._files, job, self._folders.work(job))
            output = str(self._folders.work_of(job) / VIDEO)
            return {**make, "image": given[0], "audio": given[1], "output": output,
                    "names": {**dict(zip(given, names)), output: VIDEO}}  # fmt: skip

        Move(job, fetched, self._inbox)

    def _cancel(self, do, job):
        self._worker.tell(do=do, job=job)

    def _look(self, do, look, keys, names, options):
        threading.Thread(target=self._looked, args=(look, keys, names, options), daemon=True).start()

    def _looked(self, look, keys, names, options):
        with self._folders.look() as folder:
            try:
                given = [str(self._files.fetch(key, folder)) for key in keys]
                found = self._worker.look(image=given[0], audio=given[1] if len(given) > 1 else None, options=options,
                                          names=dict(zip(given, names))).result()  # fmt: skip
            except Exception:  # a store that does not answer, a worker that ended: the server asks another
                return
        self._messages.put({**found, "look": look})

    def _moved(self, move, given):
        """The files of a job are where they are wanted, or cannot get there."""
        if given.get("is") == "failed":
            self._messages.put({**given, "job": move.job.id})
        elif given.get("do") == "make":
            return self._worker.tell(**given)
        else:
            self._messages.put({"is": "done", "job": move.job.id, **given})
        self._jobs.pop(move.job.id, None)
        self._folders.drop_work(move.job)

    def _store(self, message):
        job = self._jobs[message["job"]]
        more = {key: value for key, value in message.items() if key not in ("is", "job")}
        made = self._folders.work_of(job) / VIDEO
        Move(job, lambda: store_result(self._files, job, made) | more, self._inbox)
