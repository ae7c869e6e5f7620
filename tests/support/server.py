"""What a server does, in a process of its own: prints JSON of what each way of sharing models gave.

A frame's hash stands for the frame, so that a mixed-up video cannot pass for the right one.
"""

import faulthandler
import hashlib
import json
import os
import signal
import sys
import threading

import sonic_ms
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE

TIMES = 2


def frames(model, seed):
    """Iterator of the hashes of a short video."""
    for frame in model.generate(DEMO_IMAGE, DEMO_AUDIO, duration=1.0, min_resolution=256, seed=seed):
        yield hashlib.sha256(frame.tobytes()).hexdigest()[:12]


def together(*jobs):
    """Results of functions that run in threads of their own, at once."""
    results = [None] * len(jobs)

    def work(index):
        results[index] = jobs[index]()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def in_a_fork(function):
    """What a function says in a fork: its error, or "hangs"."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            function()
            said = "worked"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said or "hangs"


def main():
    faulthandler.dump_traceback_later(float(sys.argv[1]), exit=True)
    one, other = sonic_ms.load_model(engine="mindspore"), sonic_ms.load_model(engine="mindspore")
    alone = [list(frames(one, seed)) for seed in (0, 1)]
    found = {"alone": alone}
    found["two models"] = [together(lambda: list(frames(one, 0)), lambda: list(frames(other, 1))) for _ in range(TIMES)]
    found["one model"] = [together(lambda: list(frames(one, 0)), lambda: list(frames(one, 1))) for _ in range(TIMES)]
    pairs = list(zip(frames(one, 0), frames(one, 1)))
    found["interleaved"] = [list(column) for column in zip(*pairs)]
    half = frames(one, 0)
    begun = [next(half)]
    found["another while one is half read"] = together(lambda: list(frames(one, 1)))[0]
    found["half read"] = begun + list(half)
    found["loaded in a thread"] = together(lambda: list(frames(sonic_ms.load_model(engine="mindspore"), 1)))[0]
    video = one.generate(DEMO_IMAGE, DEMO_AUDIO, duration=1.0, min_resolution=256)
    found["generate in a fork"] = in_a_fork(lambda: list(frames(one, 0)))
    found["load in a fork"] = in_a_fork(sonic_ms.load_model)
    found["read in a fork"] = in_a_fork(lambda: list(video))
    found["parent of forks"] = list(frames(one, 0))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
