"""How fast sonic-edge is here, as the command makes a video: python -m bench.speed [--against DIR] [--stages]

Each row is a process of its own that makes one video of the package's portrait and speech: seconds until the first
frame is there (counted from before Python starts), frames a second of the whole video with writing, of rendering
alone, and the most memory of the process. --against runs another checkout in turn with this one, so that both see the
same machine; rounds are repeated and the best of each is shown, since other programs only make things slower. --stages
measures the parts one after the other instead, each alone on the cores: in a video they run beside one another.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parents[1]
COLUMNS = ("first frame s", "whole s", "frames/s", "render ms", "write ms", "memory GB")
STAGES = ("portrait s", "listen ms a second", "graph ms", "square ms", "paste ms", "watermark ms", "encode ms")
BATCHES = 12  # of frames that a stage is measured on


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024], help="min_resolution of the videos")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime"], help="onnxruntime, mindspore")
    parser.add_argument("--seconds", type=float, default=10.0, help="of speech; the recording is repeated")
    parser.add_argument("--cores", type=int, nargs="+", default=[os.cpu_count()], help="how many may be used")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout, measured in turn with this one")
    parser.add_argument("--stages", action="store_true", help="milliseconds a frame of every part, of this checkout")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        asked = json.loads(args.child)
        print(json.dumps(stages(**asked) if args.stages else measure(**asked)))
        return
    columns = STAGES if args.stages else COLUMNS
    trees = {"this": HERE} | ({"against": args.against.resolve()} if args.against else {})
    print("| side | engine | cores | tree |", " | ".join(columns), "|")
    print("|" + "---|" * (4 + len(columns)))
    for side in args.sides:
        for engine in args.engines:
            for cores in args.cores:
                rows = {name: [] for name in trees}
                for _ in range(args.rounds):
                    for name, tree in trees.items():
                        rows[name].append(run(tree, side, engine, args.seconds, cores, args.stages))
                for name, found in rows.items():
                    best = {column: max if column == "frames/s" else min for column in columns}
                    cells = [f"{best[column](row[column] for row in found):.3g}" for column in columns]
                    print(f"| {side} | {engine} | {cores} | {name} |", " | ".join(cells), "|", flush=True)


def run(tree, side, engine, seconds, cores, parts=False):
    """One row, of `stages` if parts are wanted, else of `measure`, in a new process of a checkout."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    asked = {"side": side, "engine": engine, "seconds": seconds, "started": time.time()}
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(asked), *(["--stages"] if parts else [])],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tree)},
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        check=True,
    )
    return json.loads(done.stdout)


def measure(side, engine, seconds, started):
    """The row, in this process."""
    import resource
    import tempfile

    import sonic_ms

    examples = Path(sonic_ms.__file__).parent / "examples"
    model = sonic_ms.load_model("sonic-edge", engine=engine)
    speech = repeated(examples / "speech.wav", seconds)
    video = model.generate(
        str(examples / "portrait.jpg"), speech, sample_rate=16000, min_resolution=side, max_audio_seconds=3600
    )
    next(iter(video))
    first = time.time() - started
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        sonic_ms.save_video(video, Path(folder) / "video.mp4", progress=False)
        writing = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    whole = time.time() - started
    begin = time.perf_counter()
    for count, _ in enumerate(video, 1):
        if count == 100:
            break
    render = (time.perf_counter() - begin) / count
    values = (first, whole, video.n_frames / writing, 1000 * render, 1000 * writing / video.n_frames, memory)
    return dict(zip(COLUMNS, values))


def stages(side, engine, seconds, started):
    """{stage: seconds or milliseconds}, of a frame where nothing else is said; `started` is not needed."""
    import tempfile

    import sonic_ms
    from sonic_ms.edge.idle import idle_motion
    from sonic_ms.edge.squares import SquareRenderer
    from sonic_ms.edge.units import EDGE_BATCH
    from sonic_ms.labels.watermark import Marker
    from sonic_ms.media.audio import speech_envelope
    from sonic_ms.media.paste import Paster
    from sonic_ms.media.video import VideoWriter
    from sonic_ms.pipeline import Progress, read_inputs

    examples = Path(sonic_ms.__file__).parent / "examples"
    generator = sonic_ms.load_model("sonic-edge", engine=engine).generator
    speech = repeated(examples / "speech.wav", seconds)
    inputs = read_inputs(generator, str(examples / "portrait.jpg"), speech, 16000, {"min_resolution": side})
    generator.prepare(inputs.photo, inputs.face, inputs.settings, Progress())  # the nets are loaded
    scene, portrait = timed(lambda: generator.prepare(inputs.photo, inputs.face, inputs.settings, Progress()))
    generator.articulate(speech)
    curves, listen = timed(lambda: generator.articulate(speech))
    pose = idle_motion(len(curves), 0, speech_envelope(speech), 1.0)
    renderer = SquareRenderer(generator.engine, scene, f"edge_render_{scene.crop.shape[0]}", EDGE_BATCH)
    parts = [slice(first, first + EDGE_BATCH) for first in range(0, BATCHES * EDGE_BATCH, EDGE_BATCH)]
    renderer.draw(curves[parts[0]], pose[parts[0]])
    drawn, graph = timed(lambda: [renderer.draw(curves[part], pose[part]) for part in parts])
    squares, together = timed(lambda: [frame for one in drawn for frame in renderer.put_together(*one)])
    paster, mark = Paster(scene), Marker(1)
    frames, paste = timed(lambda: [paster.paste(square) for square in squares])
    marked, watermark = timed(lambda: [mark(frame, number / 25) for number, frame in enumerate(frames)])

    def encode():
        with VideoWriter(Path(folder) / "video.mp4", frames[0].shape[1::-1]) as writer:
            for frame in marked:
                writer.write(frame)

    with tempfile.TemporaryDirectory() as folder:
        _, encoding = timed(encode)
    each = [1000 * took / len(frames) for took in (graph, together, paste, watermark, encoding)]
    return dict(zip(STAGES, (portrait, 1000 * listen / seconds, *each)))


def timed(work):
    """(what work() gives, seconds)."""
    begin = time.perf_counter()
    return work(), time.perf_counter() - begin


def repeated(path, seconds):
    """float32 samples (n,) at 16 kHz of a recording, again and again until `seconds` are full."""
    import numpy as np

    from sonic_ms.media.audio import load_audio

    samples = load_audio(path)
    return np.resize(samples, round(seconds * 16000))


if __name__ == "__main__":
    main()
