"""The whole build on synthetic clips: what passes, what is refused and why, resuming, damaged files."""

import json
import shutil
import signal

import numpy as np
import pytest

from sonic_ms import cli
from sonic_ms.data import build as builder
from sonic_ms.data.build import build
from sonic_ms.data.config import DataConfig
from sonic_ms.data.decode import frames_of
from sonic_ms.data.index import Index
from sonic_ms.data.samples import Shards
from sonic_ms.data.shards import page_size, pictures, read_rows, unpack, write_shard
from sonic_ms.errors import OutputError, UsageError, WeightsError
from sonic_ms.files.digest import sha256_of

CONFIG = DataConfig(resolution=64, min_face=40)


def quiet(line):
    pass


@pytest.fixture(scope="module")
def built(tmp_path_factory, talking):
    """(folder, Index) of the good clip alone."""
    out = tmp_path_factory.mktemp("built") / "shards"
    return out, build([talking], out, CONFIG, note=quiet)


@pytest.mark.slow
class TestBuild:
    def test_a_good_clip_is_stored_as_it_was(self, built, talking, speech):
        out, index = built
        (entry,) = index.entries
        (clip,) = entry["clips"]
        assert entry["rejected"] == [] and (clip["start"], clip["end"]) == (0, 5)
        assert abs(clip["lag"]) <= 1 and clip["sync"] > 0.5
        (row,) = read_rows(out / entry["shard"])
        record, frames = unpack(row), pictures(row)
        assert record["id"] == clip["id"] and len(frames) == 125
        assert record["buckets"] == pytest.approx([clip["translation"], clip["expression"]], abs=1e-3)
        assert record["buckets"].min() > 0 and record["buckets"].max() < 128
        # the sound is the clip's, sample by sample but for AAC, and not shifted
        sound = record["audio"] / 32767
        assert len(sound) == 5 * 16000 and np.corrcoef(sound, speech)[0, 1] > 0.95
        # frame 60 is frame 60 of the video, cropped and scaled
        import cv2

        source = list(frames_of(talking))[60]
        x1, y1, x2, y2 = clip["crop"]
        expected = cv2.resize(source[y1:y2, x1:x2], (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(frames[60].astype(int) - expected).mean() < 3
        other = cv2.resize(next(frames_of(talking))[y1:y2, x1:x2], (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(frames[60].astype(int) - other).mean() > np.abs(frames[60].astype(int) - expected).mean()

    def test_the_mask_covers_the_face_in_every_frame(self, built, analyzer):
        import cv2

        out, index = built
        (row,) = read_rows(out / index.entries[0]["shard"])
        record = unpack(row)
        for frame in pictures(row)[::40]:
            large = cv2.resize(frame, (256, 256), interpolation=cv2.INTER_CUBIC)
            points = analyzer.landmarks(large, analyzer.detect(large)[0]).points[:, :2] / 4
            rows, columns = np.clip(points[:, ::-1].astype(int), 0, 63).T
            assert record["mask"][rows, columns].mean() > 0.97 * 255
        assert 0.1 < record["mask"].mean() / 255 < 0.7  # and not everything

    def test_the_index_holds_the_sha256_of_every_file(self, built):
        out, index = built
        (entry,) = index.entries
        found = [sha256_of(out / (entry["shard"] + suffix)) for suffix in ("", ".db")]
        assert entry["shard_sha256"] == found
        index.check_shard(entry, contents=True)

    def test_every_fault_is_refused_with_its_reason(self, tmp_path, talking, remake, late):
        videos = tmp_path / "videos"
        videos.mkdir()
        remake(videos / "blurred.mp4", picture="gblur=1.5")
        remake(videos / "dumb.mp4", sound=np.zeros(0))
        remake(videos / "late.mp4", sound=late)
        remake(videos / "noface.mp4", picture="boxblur=40")
        remake(videos / "silent.mp4", sound=np.zeros(80000))
        remake(videos / "two.mp4", picture="split[a][b];[a][b]hstack")
        (videos / "cut.mp4").write_bytes(talking.read_bytes()[: talking.stat().st_size // 3])
        (videos / "text.mp4").write_text("not a video")
        notes = []
        with pytest.raises(UsageError, match="no clip could be used: 8 videos") as error:
            build([videos], tmp_path / "out", CONFIG, note=notes.append)
        assert "out of sync" in str(error.value) and "\n" not in str(error.value)
        entries = {entry["video"].rsplit("/", 1)[1]: entry for entry in Index.open(tmp_path / "out").entries}
        reasons = {name: entry.get("error") or entry["rejected"][0]["reason"] for name, entry in entries.items()}
        assert "sharpness" in reasons["blurred.mp4"] and reasons["dumb.mp4"] == "no sound"
        assert "frames off the sound" in reasons["late.mp4"] and reasons["noface.mp4"] == "no face"
        assert "speech in 0 %" in reasons["silent.mp4"] and " faces" in reasons["two.mp4"]
        assert "corrupt" in reasons["cut.mp4"] and "corrupt" in reasons["text.mp4"]
        assert len(notes) == 2  # the two that cannot be read

    def test_other_frame_rates_keep_the_sync(self, tmp_path, remake):
        path = remake(tmp_path / "fast.mp4", picture="fps=30")
        (entry,) = build([path], tmp_path / "out", CONFIG, note=quiet).entries
        assert abs(entry["clips"][0]["lag"]) <= 1 and entry["clips"][0]["end"] == pytest.approx(5, abs=0.05)


@pytest.mark.slow
class TestResume:
    def test_a_second_run_adds_nothing_and_a_copy_is_passed_over(self, built, talking, tmp_path):
        out = shutil.copytree(built[0], tmp_path / "out")
        before = (out / "index.jsonl").read_bytes()
        shutil.copy(talking, tmp_path / "copy.mp4")
        notes = []
        build([talking, tmp_path / "copy.mp4"], out, CONFIG, note=notes.append)
        assert (out / "index.jsonl").read_bytes() == before and "the same as" in notes[0]

    def test_a_build_that_was_stopped_goes_on_with_the_next_video(self, tmp_path, talking, remake, monkeypatch):
        paths = [talking, remake(tmp_path / "other.mp4", picture="hue=h=20")]
        real = builder.write_shard

        def stop_at_second(path, records, page):
            if done:
                path.write_bytes(b"half a shard")
                raise KeyboardInterrupt
            done.append(path)
            real(path, records, page)

        done = []
        monkeypatch.setattr(builder, "write_shard", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            build(paths, tmp_path / "out", CONFIG, note=quiet)
        first = Index.open(tmp_path / "out").entries
        assert len(first) == 1
        with open(tmp_path / "out" / "index.jsonl", "a") as file:
            file.write('{"video": "cut o')  # a line that was not finished
        written = []
        monkeypatch.setattr(builder, "write_shard", lambda *a: (written.append(a), real(*a)))
        index = build(paths, tmp_path / "out", CONFIG, note=quiet)
        assert index.entries[0] == first[0] and len(index.entries) == 2 and len(written) == 1
        for line in (tmp_path / "out" / "index.jsonl").read_text().splitlines():
            json.loads(line)
        left = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.is_dir())
        assert left == sorted(["index.jsonl", *(e["shard"] + s for e in index.entries for s in ("", ".db"))])

    def test_a_shard_cut_in_half_is_told_and_built_again(self, built, talking, tmp_path):
        out = shutil.copytree(built[0], tmp_path / "out")
        (entry,) = Index.open(out).entries
        shard = out / entry["shard"]
        whole = shard.stat().st_size
        with open(shard, "r+b") as file:
            file.truncate(whole // 2)
        with pytest.raises(WeightsError, match=f"has {whole // 2} bytes, expected {whole} bytes"):
            Shards(out)
        with pytest.raises(WeightsError, match="damaged"):
            read_rows(shard)
        notes = []
        index = build([talking], out, CONFIG, note=notes.append)
        index.check_shard(index.entries[0], contents=True)
        assert "build again" in notes[0] and len(read_rows(shard)) == 1

    def test_other_settings_are_refused(self, built, talking):
        with pytest.raises(UsageError, match="resolution is 128, it began with 64"):
            build([talking], built[0], DataConfig(resolution=128, min_face=40), note=quiet)

    def test_a_full_disk_loses_nothing_that_was_finished(self, built, tmp_path, remake, monkeypatch):
        def full(path, records, page):
            raise OSError(28, "No space left on device")

        out = shutil.copytree(built[0], tmp_path / "out")
        monkeypatch.setattr(builder, "write_shard", full)
        with pytest.raises(OutputError, match="disk full"):
            build([remake(tmp_path / "third.mp4", picture="hue=h=40")], out, CONFIG, note=quiet)
        assert Index.open(out).entries == built[1].entries
        assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in built[0].iterdir())


class TestShards:
    def test_a_clip_of_noise_fits_and_a_larger_one_is_named(self, tmp_path):
        """35 MB of pictures: more than a page of MindRecord holds by itself."""
        frames, side = 100, 512
        record = {"id": "noise", "jpegs": [np.random.default_rng(0).bytes(350_000)] * frames, "box": [0, 0, 9, 9]}
        record |= {"audio": np.zeros(64000, np.int16), "mask": np.ones((side, side), np.uint8), "reference": 0}
        record["buckets"] = np.float32([3, 4])
        write_shard(tmp_path / "a.mindrecord", [record], page_size(frames, side))
        (row,) = read_rows(tmp_path / "a.mindrecord")
        assert len(row["frames"].item()) == 35_000_001 and unpack(row)["audio"].shape == (64000,)
        with pytest.raises(UsageError, match="clip noise takes 33 MB, a shard holds at most 16 MB"):
            write_shard(tmp_path / "b.mindrecord", [record], 1 << 24)
        assert page_size(250, 1024) == 1 << 28

    @pytest.mark.slow
    def test_shards_without_latents_are_refused_for_training(self, built):
        with pytest.raises(UsageError, match="without --model"):
            Shards(built[0])

    @pytest.mark.slow
    def test_the_trainer_takes_samples_that_hold_what_the_networks_say(self, tmp_path, talking):
        from sonic_ms.convert import checkpoints

        from sonic_ms.base.configs import AdapterConfig
        from sonic_ms.data.clips import Encoders
        from sonic_ms.files.weights import load_config
        from sonic_ms.train.base.clips import cut, length
        from tests.support import tiny_checkpoint as make_tiny_checkpoint

        make_tiny_checkpoint.write_tree(tmp_path / "tree", 0)
        model = tmp_path / "model"
        checkpoints.convert(checkpoints.plan(tmp_path / "tree")[0], model)
        build([talking], tmp_path / "out", CONFIG, model, note=quiet)
        shards = Shards(tmp_path / "out")
        assert len(shards) == 1
        sample = shards[0]
        assert length(sample) == 63  # 125 frames at 25 a second
        configs = [load_config(AdapterConfig, model / name) for name in ("audio2token", "audio2bucket")]
        clip = cut(sample, 3, 8, *configs)
        assert clip["latents"].shape == (8, 4, 8, 8) and clip["mask"].shape == (64, 64)
        assert clip["token_states"].shape == (8, 10, 5, 32) and np.isfinite(clip["token_states"]).all()
        (row,) = read_rows(tmp_path / "out" / Index.open(tmp_path / "out").entries[0]["shard"])
        frames, encoders = pictures(row), Encoders(model)
        latents = encoders.latents(frames[20])  # JPEGs: not to the bit
        near, far = (np.abs(sample["latents"][i] - latents).mean() for i in (10, 30))
        assert near < 0.5 * far or near < 0.02
        states = encoders.states(sample_sound(row))
        assert np.abs(states - sample["whisper_states"]).max() < 0.02
        assert len(states) == 250


def sample_sound(row):
    return unpack(row)["audio"].astype(np.float32) / 32767


class TestCommand:
    @pytest.fixture(autouse=True)
    def signals(self):
        before = signal.getsignal(signal.SIGTERM)
        yield
        signal.signal(signal.SIGTERM, before)

    @pytest.mark.parametrize(
        "arguments, code, words",
        [
            (["EMPTY"], 2, "holds no video"),
            (["EMPTY/gone"], 3, "no such file"),
            (["EMPTY", "--config", "BAD"], 2, "unknown keys fps"),
        ],
    )
    def test_mistakes_are_one_line(self, tmp_path, capsys, arguments, code, words):
        (tmp_path / "empty").mkdir()
        (tmp_path / "bad.yaml").write_text("fps: 30\n")
        places = {"EMPTY": str(tmp_path / "empty"), "BAD": str(tmp_path / "bad.yaml")}
        for old, new in places.items():
            arguments = [argument.replace(old, new) for argument in arguments]
        assert cli.main(["data", "build", *arguments, "--out", str(tmp_path / "out")]) == code
        error = capsys.readouterr().err.strip()
        assert words in error and "\n" not in error

    def test_the_shipped_settings_are_the_defaults(self):
        from pathlib import Path

        from sonic_ms.files.config import from_dict, read_yaml

        path = Path(cli.__file__).parents[1] / "configs" / "data.yaml"
        assert from_dict(DataConfig, read_yaml(path), str(path)) == DataConfig()
