"""Files that are nearly sound: seeded mutations, and the readers of this package that have to bear them.

python -m tests.support.fuzzing KIND [COUNT]       counts what each ends in; 0 faults are expected
"""

import collections
import copy
import dataclasses
import hashlib
import io
import json
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import mindspore as ms
import numpy as np

from sonic_ms.errors import SonicError
from sonic_ms.files.config import from_dict, read_yaml

NUMBERS = (0, 1, 2, 127, 128, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
PIECES = (
    bytes(64),
    b"[" * 200,
    b"{" * 200,
    b"\xff\xfe",
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 20,
    b"null",
    b'""',
    b"/etc/passwd",
)
VALUES = (
    None, True, 0, -1, 2**31, 2**63, 10**30, 1.5, float("nan"), float("inf"), "", "x", "\0", "\ud800", [], {}, [[]],
    [-1], [2**40, 0], {"a": 1}, [None], [1] * 70, "F32", "F8_E4M3",
)  # fmt: skip


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data) or 1)
        kind = rng.randrange(7)
        if kind == 0:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) & (256**width - 1)
            data[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            data[place:place] = data[place : place + rng.randrange(1, 64)]
        elif kind == 4:
            del data[place : place + rng.randrange(1, 32)]
        elif kind == 5:
            data[place:place] = rng.randbytes(rng.randrange(1, 16))
        else:
            data[place : place + 1] = rng.choice(PIECES)
    return bytes(data)


def mutated_json(value, rng):
    """One node of a JSON value replaced, or an entry left out or added."""
    nodes = []

    def walk(node):
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            nodes.append((node, key))
            walk(node[key])

    walk(value)
    if nodes:
        node, key = rng.choice(nodes)
        if isinstance(node, dict) and rng.random() < 0.3:
            node[rng.choice(("x", "__metadata__", "", "\ud800"))] = copy.deepcopy(rng.choice(VALUES))
        else:
            node[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def texts(values):
    """What a mutated description is written from, as bytes."""
    return json.dumps(values).encode()


def some_of(source, rng):
    """A JSON value with one to three nodes changed, as bytes; or its bytes changed."""
    if rng.random() < 0.4:
        return mutated(texts(source), rng)
    value = copy.deepcopy(source)
    for _ in range(rng.choice((1, 1, 3))):
        value = mutated_json(value, rng)
    return texts(value)


# A kind: function of a folder -> (make, read). make(rng) -> bytes of a case, read(bytes) reads it as the package does;
# what read returns has to be true.


def manifest(folder):
    from sonic_ms.deploy.bundle import Bundle
    from sonic_ms.edge.generator import open_bundle
    from sonic_ms.runtime.choose import _choose

    (folder / "onnx").mkdir()
    for name in ("a.onnx", "a.data"):
        (folder / "onnx" / name).write_bytes(b"x")
    sha256 = hashlib.sha256(b"x").hexdigest()

    def tensor(name, *shape):
        return {"name": name, "shape": shape, "dtype": "float32"}

    graph = {"path": "onnx/a.onnx", "sha256": sha256, "data": [{"path": "onnx/a.data", "sha256": sha256}]}
    unit = {"inputs": [tensor("mel", 1, 80, 1, 20)], "outputs": [tensor("curves", 1, 5, 4)], "onnx": graph}
    sound = {"format": 1, "model": "sonic-edge", "precision": "fp32", "mindspore": "2.8.0", "mind_ir_version": 3,
             "weights_sha256": "0" * 64, "licence": "x", "gear": {"sides": [512], "detector": None}, "for_cpu": False,
             "units": {"edge_audio": unit, "edge_render_512": unit}}  # fmt: skip
    sound = json.loads(json.dumps(sound))

    def read(data):
        (folder / "manifest.json").write_bytes(data)
        bundle = Bundle.load(folder)
        for name, one in bundle.units.items():
            for kind in ("onnx", "mindir", "om", "lite"):
                if bundle.has(name, kind):
                    assert bundle.path(name, kind).resolve().is_relative_to(folder.resolve())
            assert sum(np.prod(tensor.shape) for tensor in (*one.inputs, *one.outputs)) < 1 << 40
        bundle.check_device("Ascend")
        try:
            _choose(bundle)
            open_bundle(bundle, None)
        except SonicError:
            pass
        return bundle

    return lambda rng: some_of(sound, rng), read


YAML_PIECES = (
    b"1: 2\n", b"yes: 1\n", b"2001-99-99", b"!!int x", b"!!int ''", b"!!float x", b"!!bool x", b"!!timestamp x",
    b"!!python/object/apply:os.system [\"false\"]\n", b"&a [*a]", b"*a", b".nan", b".inf", b"0b_", b"? [a]\n: b\n",
    b"<<: {a: 1}\n", b"<<: 5\n", b"!!set {a}", b"!!omap [a: 1]", b"!!pairs [a: 1]", b"!!binary abc", b"\0", b"9" * 5000,
    b"~: 1\n", b"1.5: 2\n", b"2001-01-01: 1\n", b"1:99:99", b'"\\ud800"', b"[" * 300, b"{a: " * 300,
    b"2001-01-01 00:00:00 +99:99", b"%YAML 9.9\n---\n", b"a: &a {b: 1}\n",
)  # fmt: skip

YAML_VALUES = (b"1", b"4", b"64", b"0.5", b"true", b"-1", b"null", b"constant", b"[1, 2, 3, 4]", b"{}")


def yaml(folder):
    from sonic_ms.base.options import BaseOptions
    from sonic_ms.data.config import DataConfig
    from sonic_ms.options import parse
    from sonic_ms.train.loop.trainer import LoopConfig

    loop = b"steps: 2\nbatch_size: 3\nlearning_rate: 0.001\nschedule: cosine\naverage: 0.9\nbias_correction: true\n"
    data = b"resolution: 512\nexpand_ratio: 0.5\nmin_seconds: 3.0\nmax_seconds: 10\nmin_face: 96\nmax_lag: 3\n"
    video = b"min_resolution: 512\nkeep_resolution: true\nface_box: [1, 2, 30, 40]\nseed: 7\nduration: 2.5\nface: '1'\n"

    def make(rng):
        text = bytearray(rng.choice((loop, data, video)))
        if rng.random() < 0.4:
            return mutated(text, rng)
        places = [number + 2 for number, one in enumerate(text) if one == ord(":")]
        starts = [0, *(number + 1 for number, one in enumerate(text) if one == ord("\n"))]
        piece = rng.choice(YAML_PIECES + YAML_VALUES)
        place = rng.choice(starts if piece.endswith(b"\n") else places)
        end = place if piece.endswith(b"\n") else text.index(b"\n", place)
        text[place:end] = piece
        return bytes(text)

    def read(case):
        (folder / "a.yaml").write_bytes(case)
        values = read_yaml(folder / "a.yaml")
        if any(str(name).startswith("min_r") for name in values):
            return parse(BaseOptions, values, "a.yaml", {})
        return from_dict(LoopConfig if "steps" in values else DataConfig, values, "a.yaml")

    return make, read


def resume(folder):
    from sonic_ms.base.denoise import Resume

    latents = np.random.default_rng(0).standard_normal((4, 4, 8, 8)).astype(np.float32)
    file = folder / "state"
    Resume(file, "digest", latents.shape, 5).save(3, latents)
    sound = file.read_bytes()
    length = int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8 : 8 + length])
    older = io.BytesIO()
    np.savez(older, digest="digest", steps=3, latents=latents)  # what such files were before

    def make(rng):
        kind = rng.random()
        if kind < 0.5:
            text = some_of(header, rng)
            return len(text).to_bytes(8, "little") + text + sound[8 + length :]
        return mutated(sound if kind < 0.9 else older.getvalue(), rng)

    def read(case):
        file.write_bytes(case)
        steps, kept = Resume(file, "digest", latents.shape, 5).load()
        if kept is None:
            raise SonicError("another run, or damaged")
        assert kept.shape == latents.shape and kept.dtype == latents.dtype and 1 <= steps <= 5
        return steps

    return make, read


def checkpoint(folder):
    from sonic_ms.train.loop import checkpoint as module
    from sonic_ms.train.loop.distributed import Group

    def network():
        return {"a": ms.Parameter(np.zeros((3, 4), np.float32)), "b": ms.Parameter(np.zeros(4, np.float32))}

    group, into, identity = Group(), network(), {"seed": 1, "rate": 0.1}
    state = {"scale": 2.0, "good": 3, "recent": [0.5, 0.25], "skipped": 0, "seconds": 1.5}
    for step in (4, 5):
        module.save(folder, step, group, network(), state, identity)
    file = folder / "checkpoints" / "00000005" / "rank0.safetensors"
    sound = file.read_bytes()
    length = int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8 : 8 + length])

    def make(rng):
        kind, value = rng.random(), copy.deepcopy(header)
        if kind < 0.3:
            return mutated(sound, rng)
        name = rng.choice(list(value["__metadata__"]))
        if kind < 0.7 and name in ("state", "identity"):
            value["__metadata__"][name] = some_of(json.loads(value["__metadata__"][name]), rng).decode("latin1")
        elif kind < 0.9:
            odd = (
                "",
                "x",
                "null",
                "[]",
                "{}",
                "-1",
                "1e9",
                "99999999",
                "9" * 5000,
                "NaN",
                "[" * 100_000,
                "²",
                "٣",
                None,
            )
            value["__metadata__"][name] = rng.choice(odd)
        else:
            value = mutated_json(value, rng)
        text = texts(value)
        return len(text).to_bytes(8, "little") + text + sound[8 + length :]

    def read(case):
        file.write_bytes(case)
        step, _, notes = module.load(folder, group, into, identity)
        assert (step, len(notes)) in ((5, 0), (4, 1))  # the newest, or the one before, with a word
        if notes:
            raise SonicError(notes[0])
        return step

    return make, read


def index(folder):
    from sonic_ms.data.build import summary
    from sonic_ms.data.index import Index
    from sonic_ms.data.samples import Shards

    for suffix in ("", ".db"):
        (folder / f"s.mindrecord{suffix}").write_bytes(b"x")
    rows = [
        {"config": {"a": 1}, "model": "x", "version": 1},
        {"video": "w", "sha256": "1", "spans": [], "error": "no video"},
        {"video": "v", "sha256": "0", "spans": [[0, 1.5]], "seconds": 1.0, "shard": "s.mindrecord", "bytes": [1, 1],
         "shard_sha256": ["0", "0"], "clips": [{"id": "x", "start": 0, "end": 1}], "rejected": [{"reason": "face x"}]},
    ]  # fmt: skip

    def make(rng):
        if rng.random() < 0.4:
            return mutated(b"\n".join(map(texts, rows)) + b"\n", rng)
        value = mutated_json(copy.deepcopy(rows), rng)
        return b"\n".join(map(texts, value)) + b"\n"

    def read(case):
        (folder / "index.jsonl").write_bytes(case)
        found = Index.open(folder)
        {(entry["sha256"], str(entry["spans"])): entry["video"] for entry in found.entries}
        Index.begin(folder, found.header["config"], found.header["model"])
        return len(Shards(folder)) and summary(found)

    return make, read


def mouth(folder):
    from sonic_ms.data.mouths import MouthClip, load_clip, save_clip

    samples = np.zeros(8000, np.float32)
    measures = {name: np.zeros(12, np.float32) for name in ("opening", "width", "inner_width", "jaw")}
    file = save_clip(MouthClip("clip", samples, measures, 0, "speaker", "en"), folder)
    sound, plain = file.read_bytes(), io.BytesIO()
    with np.load(file) as fields:
        arrays = dict(fields)

    def make(rng):
        if rng.random() < 0.4:
            return mutated(sound, rng)
        plain.seek(0)
        changed = dict(arrays)
        odd = (np.array("x"), np.zeros((2, 2)), np.array(1e300), np.array(np.nan), np.zeros(0, "U1"), np.array([b"x"]),
               np.zeros(3, "V2"), np.array("2001", "M8[Y]"), np.zeros((), "i4,f8"), np.array(1 + 2j))  # fmt: skip
        changed[rng.choice(list(arrays))] = rng.choice(odd)
        np.savez(plain, **changed)
        whole = plain.getvalue()[: plain.tell()]
        return mutated(whole, rng) if rng.random() < 0.3 else whole

    def read(case):
        file.write_bytes(case)
        clip = load_clip(file)
        return clip.heard(*clip.measures) is not None

    return make, read


def plan(folder):
    """Shapes, names and the description of networks that are to be converted."""
    from sonic_ms.convert import checkpoints

    from tests.support import tiny_checkpoint as tiny

    networks = ("audio2token", "audio2bucket", "rife", "image_encoder", "vae", "whisper_tiny")
    shapes = {name: {key: list(shape) for key, shape in tiny.tiny_shapes(name).items()} for name in networks}
    svd = "stable-video-diffusion-img2vid-xt"
    places = {"audio2token": "Sonic/audio2token.json", "audio2bucket": "Sonic/audio2bucket.json",
              "image_encoder": f"{svd}/image_encoder/config.json", "vae": f"{svd}/vae/config.json",
              "whisper_tiny": "whisper-tiny/config.json"}  # fmt: skip
    hints = {name: json.loads(json.dumps(tiny.CONFIGS[places[name]])) if name in places else {} for name in networks}
    fields = ("num_attention_heads", "layer_norm_eps", "scale_list", "scaling_factor", "_class_name", "architectures")

    def make(rng):
        name = rng.choice(networks[:3] * 3 + networks)
        these, described = copy.deepcopy(shapes[name]), copy.deepcopy(hints[name])
        for _ in range(rng.choice((1, 1, 2))):
            key, what = rng.choice(list(these)), rng.randrange(6)
            if what == 0 and these[key]:
                these[key][rng.randrange(len(these[key]))] = rng.choice((0, 1, 2, 3, 7))
            elif what == 1:
                del these[key]
            elif what == 2:
                these[key] = rng.choice(([], [0], [1], [0] * 6, [1] * 8))
            elif what == 3:
                these[rng.choice(("layers.5.x", f"{key}.0", key.replace("0", "9"), "é", "a" * 499))] = [1]
            else:
                described[rng.choice((*described, *fields))] = copy.deepcopy(rng.choice(VALUES))
        text = texts(described) if rng.random() < 0.9 else mutated(texts(described), rng)
        return texts(these) + b"\0" + text

    def read(case):
        names, _, described = case.partition(b"\0")
        header, position = {}, 0
        for name, shape in json.loads(names).items():
            size = 2 * int(np.prod(shape, dtype=np.int64))
            header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, position + size]}
            position += size
        text = texts(header)
        with open(folder / "m.safetensors", "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + position)
        (folder / "m.json").write_bytes(described)
        return checkpoints.plan(folder / "m.safetensors")[0]

    return make, read


LISTS = ("plan",)  # its error has a line for each file
KINDS = {one.__name__: one for one in (manifest, yaml, resume, checkpoint, index, mouth, plan)}


@dataclasses.dataclass
class Outcome:
    """How often a case was read and refused, and the first cases of each fault."""

    read: int = 0
    refused: int = 0
    faults: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    first: dict = dataclasses.field(default_factory=dict)


def fuzz(kind, folder, count, seconds=float("inf")):
    """Outcome of the first `count` cases of a kind, or of as many as there is time for."""
    make, read = KINDS[kind](folder)
    outcome, started = Outcome(), time.monotonic()
    for number in range(count):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert read(make(random.Random(f"{kind} {number}")))
            outcome.read += 1
        except SonicError as error:
            lines = str(error).splitlines()
            if (len(lines) != 1 and kind not in LISTS) or max(map(len, lines)) > 2000:
                outcome.faults["not one line"] += 1
                outcome.first.setdefault("not one line", (number, str(error)[:300]))
            outcome.refused += 1
        except Exception as error:
            trace = error.__traceback__
            while trace.tb_next:
                trace = trace.tb_next
            name = f"{type(error).__name__} at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            outcome.faults[name] += 1
            outcome.first.setdefault(name, (number, repr(error)[:200]))
        if time.monotonic() - started > seconds:
            break
    return outcome


def main(kind, count="20000", seconds="180"):
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = fuzz(kind, Path(folder), int(count), float(seconds))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    total = outcome.read + outcome.refused + outcome.faults.total()
    print(f"{kind}: {total} cases, {outcome.read} read, {outcome.refused} refused, {outcome.faults.total()} faults, "
          f"{time.monotonic() - started:.0f} s, {memory} MB at most")  # fmt: skip
    for name, times in outcome.faults.most_common():
        print(f"  {times} x {name}: case {outcome.first[name]}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
