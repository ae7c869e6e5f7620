"""The windows of one denoising step on several processes: each has a UNet of its own and runs one window at a time.

The processes are told arrays and answer arrays, and keep nothing between two windows; so any of them may run any
window, and what comes out is what one of them would have computed alone.
"""

import contextlib
import multiprocessing
import queue
import signal

from sonic_ms.base import networks as networks_stage
from sonic_ms.errors import EngineError, SonicError, of_the_host


class UNets:
    """`count` processes that run units of the UNet, of a converted folder. `run` may be called from as many threads at
    once. Raises EngineError, WeightsError when the first unit runs."""

    def __init__(self, folder, precision, count):
        context = multiprocessing.get_context("spawn")  # forks would share MindSpore's threads
        self.count, self._all, self._free = count, [], queue.SimpleQueue()
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=answer, args=(theirs, str(folder), precision), daemon=True)
            process.start()
            theirs.close()
            self._all.append((process, ours))
            self._free.put((process, ours))

    def run(self, unit, *arrays):
        """As networks.Networks.run, on a process that is free; waits for one."""
        process, pipe = self._free.get()
        try:
            pipe.send((unit, arrays))
            found = pipe.recv()
        except (EOFError, OSError) as error:
            process.join(1)
            raise EngineError(
                f"a process of the UNet ended (code {process.exitcode}); there may be too little memory for "
                f"{self.count} of them"
            ) from error
        finally:
            self._free.put((process, pipe))
        if isinstance(found, Exception):
            raise found
        return found

    def close(self):
        for process, pipe in self._all:
            pipe.close()
            process.terminate()
            process.join()


def answer(pipe, folder, precision):
    """What a process does until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever began it
    networks = None
    with contextlib.suppress(EOFError):
        while True:
            unit, arrays = pipe.recv()
            try:
                networks = networks or networks_stage.open_folder(folder, precision)
                found = networks.run(unit, *arrays)
            except Exception as error:
                error = of_the_host(error)
                found = error if isinstance(error, SonicError) else EngineError(" ".join(f"{error!r}".split())[:500])
            pipe.send(found)
