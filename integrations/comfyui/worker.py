"""sonic_ms in an interpreter of its own, told what to do by process.py. Also what runs inside ComfyUI when asked to.

    python worker.py LIFELINE     an inherited file descriptor

Requests come on stdin and answers go to stdout, one JSON object a line:

    -> {"do": "make", ...}        fields: see `make`
    <- {"progress": [stage, done, total]}, {"note": text}, {"video": {"frames", "size", "fps"}}: any number of them
    <- {"made": {...}} or {"error": kind, "message": one line} or {"cancelled": true}: exactly one of them
    -> {"do": "cancel"}           while a video is made; without a job it means nothing

It ends with its stdin, and the kernel ends it when the lifeline closes, whatever it is doing. Only the standard library
is imported before the first request, and from sonic_ms nothing outside a function.
"""

import json
import os
import select
import sys

RAW = "RGB, uint8, frame after frame"  # what the file of frames holds


class Lines:
    """JSON lines of a file descriptor, which can be asked whether there is one without waiting."""

    def __init__(self, descriptor):
        self._descriptor, self._unread, self.ended = descriptor, b"", False

    def next(self, wait=True):
        """The next object; None at the end, or when there is none yet and `wait` is false."""
        while b"\n" not in self._unread and not self.ended:
            if not wait and not select.select([self._descriptor], [], [], 0)[0]:
                return None
            block = os.read(self._descriptor, 1 << 16)
            self.ended = not block
            self._unread += block
        line, newline, rest = self._unread.partition(b"\n")
        if not newline:
            return None
        self._unread = rest
        return json.loads(line)


def main(lifeline):
    sys.path.pop(0)  # this folder
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries print

    def say(content):
        os.write(answers, json.dumps(content).encode() + b"\n")

    try:
        import sonic_ms
        from sonic_ms.runtime.lite_worker import end_with_parent
    except Exception as error:
        say({"error": "missing", "message": f"{type(error).__name__}: {error}"})
        return
    end_with_parent(lifeline)
    say({"sonic_ms": sonic_ms.__version__})
    requests, models = Lines(0), Models()
    while (request := requests.next()) is not None:
        if request["do"] == "make":
            answer(request, say, lambda: _is_cancelled(requests), models)


def _is_cancelled(requests):
    request = requests.next(wait=False)
    return requests.ended or (request is not None and request["do"] == "cancel")


def answer(request, say, cancelled, models):
    """Do a request and say how it ended."""
    from sonic_ms.errors import Cancelled, SonicError, of_the_host

    try:
        say({"made": make(request, say, cancelled, models)})
    except Cancelled:
        say({"cancelled": True})
    except Exception as error:
        error = of_the_host(error)
        text = " ".join(str(error).split())
        if not isinstance(error, SonicError):
            text = f"unexpected {type(error).__name__}: {text}; please report it"
        say({"error": type(error).__name__, "message": text})


class Models:
    """The model that was used last, loaded: the next video with it starts at once."""

    def __init__(self):
        self._key = self._model = None

    def get(self, *key):
        """key: model, engine, bundle, precision, as sonic_ms.load_model takes them."""
        if key != self._key:
            from sonic_ms import load_model

            self._key = self._model = None  # the old one goes first: two may not fit
            self._model = load_model(*key)
            self._key = key
        return self._model


def make(request, say, cancelled, models):
    """Make a labelled mp4. Fields of the request:

    model: name, or folder of a model or of a bundle; engine, precision: as load_model takes them.
    image, audio, output: paths, output one that does not exist yet. options: as sonic_ms takes them; by_model: {model:
    options that only it gets}. producer, certificate, key: who answers for the video; null for none.
    frames: path for the frames as the file has them before it is encoded (RAW); many: all of them, or the first alone.
    """
    from sonic_ms.labels.aigc import DEFAULT_PRODUCER, check_producer
    from sonic_ms.labels.manifest import load_signer
    from sonic_ms.labels.save import Operator, save_video
    from sonic_ms.options import owners, parse
    from sonic_ms.pipeline import MODELS, all_options, model_of

    producer = request["producer"] or DEFAULT_PRODUCER
    check_producer(producer)
    signer = load_signer(request["certificate"], request["key"]) if request["certificate"] else None
    folder = request["model"]
    is_bundle = os.path.isfile(os.path.join(folder, "manifest.json"))
    key = (folder, request["engine"], folder if is_bundle else None, request["precision"])
    name = model_of(folder, key[2])
    options = {**request["options"], **request["by_model"].get(name, {})}
    parse(MODELS[name].Options, options, "inputs", owners(all_options(), name))  # before anything is loaded
    say({"progress": ["load", 0, 1]})
    model = models.get(*key)

    def report(stage, done, total):
        say({"progress": [stage, done, total]})

    def note(text):
        say({"note": text})

    video = model.generate(request["image"], request["audio"], report=report, note=note, cancelled=cancelled, **options)
    about = {"frames": video.n_frames, "size": list(video.size), "fps": video.fps}
    say({"video": about})
    with open(request["frames"], "wb") as file:
        save_video(_kept(video, file, request["many"]), request["output"], progress=False,
                   operator=Operator(producer, signer))  # fmt: skip
    return {**about, "model": name, "number": video.labels.number}


def _kept(video, file, many):
    """The same video, whose frames are also written to a file while they are made, with the watermark of the mp4."""
    from sonic_ms.labels.save import mark_of
    from sonic_ms.labels.watermark import Marker
    from sonic_ms.media.video import Video

    mark = Marker(mark_of(video.labels.number)) if video.labels.watermark else None

    def frames():
        for index, frame in enumerate(video):
            if many or index == 0:
                file.write((mark(frame, index / video.fps) if mark else frame).tobytes())
            yield frame

    return Video(
        frames, video.size, video.n_frames, video.audio, video.audio_source, video.fps, video.notes, video.timings,
        video.labels,
    )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
