"""Personalisation on a made-up person: sonic-edge with a green mouth plays in the clip, the shipped one learns it.

One clip and one run serve most tests.
"""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor

from sonic_ms.edge.idle import SWAY
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.portrait import prepare_portrait
from sonic_ms.edge.renderer import FEATURES, Painter, PainterConfig, fold_norms
from sonic_ms.edge.rig import LOWER_TEETH, N_PARAMETERS, OFFSETS, POSE, TERMS, frame_parameters
from sonic_ms.edge.units import EDGE_FOLDER
from sonic_ms.errors import FaceError, OutputError, UsageError
from sonic_ms.face import choose, mesh
from sonic_ms.face.detect import FaceAnalyzer
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.files.weights import load_weights, save_model
from sonic_ms.media import video
from sonic_ms.media.audio import load_audio
from sonic_ms.media.image import load_image
from sonic_ms.pipeline import load_model
from sonic_ms.train.edge import footage, mouth_pairs, personalize
from sonic_ms.train.edge.renderer import random_curves
from tests.support.talking_clip import talking_clip

pytestmark = [pytest.mark.slow]


def shipped():
    return load_weights(Painter(PainterConfig()).set_train(False), EDGE_FOLDER / "painter")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """5 s of someone with a green mouth, 256x256 pixels."""
    folder = tmp_path_factory.mktemp("person")
    painter = shipped()
    bias = painter.leave.bias.asnumpy()
    bias[0::4] -= 3
    bias[1::4] += 2  # of red, green, blue, shade
    painter.leave.bias.set_data(Tensor(bias))
    save_model(painter, PainterConfig(), folder / "painter")
    shutil.copytree(EDGE_FOLDER / "audio", folder / "audio")
    speech = load_audio(str(DEMO_AUDIO), duration=5.0)
    return talking_clip(folder / "clip.mp4", load_model(folder), DEMO_IMAGE, speech)


@pytest.fixture(scope="module")
def quick():
    """Less to measure and to rehearse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(personalize, "SYNC_SECONDS", 8.0)
        patch.setattr(personalize, "REHEARSED", 40)
        patch.setattr(personalize, "UNHEARD", 40)
        yield


@pytest.fixture(scope="module")
def run(quick, clip, tmp_path_factory):
    """(folder, report) of a short run."""
    out = tmp_path_factory.mktemp("run") / "model"
    return out, personalize.personalize(clip, out, steps=40)


class TestRun:
    def test_the_mouth_of_held_out_frames_is_learned(self, run):
        out, report = run
        assert report["improvement"] >= 0.2
        assert report["after"]["inside"] < report["before"]["inside"]
        assert report["frames"]["training"] >= 20 and report["frames"]["held_out"] >= 5
        assert json.loads((out / "report.json").read_text())["after"] == report["after"]

    def test_mouths_that_the_clip_lacks_stay_as_they_were(self, run):
        _, report = run
        assert report["forgotten"] < personalize.MOST_FORGOTTEN

    def test_without_rehearsal_they_change_and_the_model_is_refused(self, quick, clip, tmp_path, monkeypatch):
        batches = personalize.PairBatches
        monkeypatch.setattr(personalize, "PairBatches", lambda training, rehearsal: batches(training))
        with pytest.raises(UsageError, match=r"it does not show would look different by 0\.\d+, expected at"):
            personalize.personalize(clip, tmp_path / "model", steps=40)
        assert not (tmp_path / "model").exists()

    def test_the_sync_figures_hardly_fall(self, run):
        _, report = run
        before, after = report["sync"]["before"], report["sync"]["after"]
        assert after["envelope_r"] >= before["envelope_r"] - 0.03
        assert abs(after["envelope_lag"]) <= max(1, abs(before["envelope_lag"]))

    def test_only_the_painter_changes(self, run):
        out, _ = run
        audio = "audio/model.safetensors"
        assert (out / audio).read_bytes() == (EDGE_FOLDER / audio).read_bytes()
        painter = "painter/model.safetensors"
        assert (out / painter).read_bytes() != (EDGE_FOLDER / painter).read_bytes()
        assert not (out / "sync.mp4").exists() and not (out / "training" / "checkpoints").exists()

    def test_generate_takes_the_folder_and_shows_the_new_mouth(self, run):
        out, _ = run
        speech = load_audio(str(DEMO_AUDIO), duration=1.2)
        options = {"image": DEMO_IMAGE, "audio": speech, "min_resolution": 256, "motion_scale": 0.0}
        pairs = zip(*(load_model(model).generate(**options) for model in (out, "sonic-edge")))
        greener = [np.subtract(own, other, dtype=float) @ (-1, 1, 0) for own, other in pairs]
        widest = max(map(np.mean, greener))
        assert widest > 0.003 and abs(greener[0].mean()) < widest / 4  # open and closed

    def test_a_folder_that_is_there_is_refused(self, clip, run):
        with pytest.raises(OutputError, match="exists already"):
            personalize.personalize(clip, run[0])

    @pytest.mark.parametrize(
        ("failure", "kind", "words"),
        [
            (OSError(28, "No space left on device"), OutputError, "No space left on device; nothing is left"),
            (UsageError("nothing was learned"), UsageError, "nothing was learned"),
            (KeyboardInterrupt(), KeyboardInterrupt, None),
        ],
    )
    def test_a_run_that_fails_leaves_no_folder(self, tmp_path, monkeypatch, failure, kind, words):
        def tune(video, out, *rest):
            (out / "painter").mkdir()
            raise failure

        monkeypatch.setattr(personalize, "read_footage", lambda video, photo: None)
        monkeypatch.setattr(personalize, "_tune", tune)
        with pytest.raises(kind, match=words):
            personalize.personalize("clip.mp4", tmp_path / "new")
        assert not (tmp_path / "new").exists()


class TestParts:
    def test_a_folded_painter_is_stored_as_one_that_paints_the_same(self):
        folded = fold_norms(shipped())
        features = Tensor(np.random.default_rng(0).random((1, FEATURES, 96, 128), np.float32))
        stored = personalize.unfolded(folded, PainterConfig())
        names = [name for name, _ in stored.parameters_and_names()]
        assert names == [name for name, _ in shipped().parameters_and_names()]
        assert np.abs(stored(features).asnumpy() - folded(features).asnumpy()).max() < 1e-5

    def test_no_frame_next_to_a_held_out_one_is_trained_on(self):
        numbers = np.arange(0, 400, 2)
        planes = np.zeros((200, 1), np.float32)
        training, held_out = mouth_pairs.split(mouth_pairs.Pairs(planes, planes, planes, numbers), 400)
        assert len(held_out) == 40 and held_out.numbers[-1] == 398
        assert training.numbers[-1] < held_out.numbers[0] - 8 + 1

    def test_more_light_in_a_batch_is_more_light_everywhere(self):
        rng = np.random.default_rng(0)
        features = rng.random((5, FEATURES, 4, 4)).astype(np.float32)
        targets = rng.random((5, 3, 4, 4)).astype(np.float32)
        pairs = mouth_pairs.Pairs(features, targets, np.ones((5, 1, 4, 4), np.float32), np.arange(5))
        seen, wanted, _ = personalize.PairBatches(pairs)(rng, 6)
        for one, target in zip(seen, wanted):
            number = int(np.argmin(np.abs(features[:, 5] - one[5]).sum((1, 2))))
            gain = target[0, 0, 0] / targets[number, 0, 0, 0]
            assert 0.9 <= gain <= 1.1 and np.allclose(target, gain * targets[number], rtol=1e-4)
            assert np.allclose(one[:3], gain * features[number, :3], rtol=1e-4)
            assert np.allclose(one[-3:], gain * features[number, -3:], rtol=1e-4)
            assert np.array_equal(one[3:-3], features[number, 3:-3])

    def test_a_batch_has_equal_parts_of_both_lists(self):
        def pairs(value, count):
            planes = np.full((count, 6, 4, 4), value, np.float32)
            return mouth_pairs.Pairs(planes, planes[:, :3], planes[:, :1], np.arange(count))

        _, _, marks = personalize.PairBatches(pairs(1, 3), pairs(2, 50))(np.random.default_rng(0), 8)
        assert sorted(marks[:, 0, 0, 0]) == [1] * 4 + [2] * 4
        _, _, marks = personalize.PairBatches(pairs(1, 3), None)(np.random.default_rng(0), 8)
        assert len(marks) == 8

    def test_a_clip_that_has_every_mouth_needs_no_rehearsal(self, monkeypatch):
        monkeypatch.setattr(mouth_pairs, "random_curves", lambda rng, count: np.zeros((count, 8)))
        rgb = load_image(DEMO_IMAGE)
        portrait = prepare_portrait(rgb, choose.find_mesh(rgb, FaceAnalyzer())[0], EdgeOptions())
        rows = frame_parameters(portrait.rig, np.zeros((1, 8)), np.zeros((1, 6)))
        clip = SimpleNamespace(portrait=portrait, parameters=rows, numbers=np.array([3]))
        assert mouth_pairs.rehearse(clip, None, [3], 0, 20) is None

    def test_rehearsed_heads_move_as_in_generate(self, hopper, monkeypatch):
        """A painter that only ever saw a still head painted white blocks into mouths of one that moves."""
        portrait = prepare_portrait(hopper, choose.find_mesh(hopper, FaceAnalyzer())[0], EdgeOptions())
        moved = []
        monkeypatch.setattr(mouth_pairs, "move", lambda _, rows: moved.append(rows) or np.zeros((len(rows), 16, 4, 4)))
        monkeypatch.setattr(mouth_pairs, "show", lambda painter, features: features[:, :3])
        clip = SimpleNamespace(portrait=portrait, parameters=np.full((1, N_PARAMETERS), 9.0), numbers=np.array([0]))
        assert len(mouth_pairs.rehearse(clip, None, [0], 0, 400)) == 400
        rig = portrait.rig
        usual = np.array([SWAY[name] for name in POSE[:4]]) * (rig.height, rig.height, 1, 1)
        spread = moved[0][:, OFFSETS["pose"] : OFFSETS["pose"] + 4].std(0)
        assert np.allclose(spread, usual, rtol=0.15)

    @pytest.mark.parametrize("lower", [0.0, 0.25])
    def test_the_height_of_the_teeth_is_found_in_another_colour(self, hopper, lower):
        portrait = prepare_portrait(hopper, choose.find_mesh(hopper, FaceAnalyzer())[0], EdgeOptions())
        rows = frame_parameters(portrait.rig, random_curves(np.random.default_rng(0), 6), np.zeros((6, 6)))
        clip = footage.Footage(portrait, rows, None, np.arange(6), 6, [], hopper)
        painter = fold_norms(shipped())
        drawn = mouth_pairs.show(painter, mouth_pairs.move(portrait, footage.lower_the_teeth(clip, lower).parameters))
        drawn = 0.2 + 0.5 * drawn * np.float32([0.3, 1, 0.6])[None, :, None, None]
        pairs = mouth_pairs.Pairs(mouth_pairs.move(portrait, rows), drawn, drawn[:, :1], np.arange(6))
        assert mouth_pairs.find_teeth(clip, painter, pairs) == pytest.approx(lower, abs=0.051)

    def test_what_is_learned_has_the_light_of_the_clip_and_the_details_of_the_painter(self, monkeypatch):
        features = np.zeros((3, FEATURES, 96, 128), np.float32)
        features[:, 7, 30:60, 30:90] = 1
        inside = features[0, 7] > 0
        gaps = np.arange(128) % 8 < 2
        drawn = np.broadcast_to(np.where(gaps, 0.2, 0.8), (3, 3, 96, 128)).astype(np.float32)
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, (3, 1, 96, 128))
        shade = np.linspace(0.3, 0.5, 128)
        clip = (shade + noise + np.array([0.4, 0.4, -0.4])[:, None, None, None] * (drawn - 0.65)).astype(np.float32)
        monkeypatch.setattr(mouth_pairs, "show", lambda painter, features: drawn)
        pairs = mouth_pairs.Pairs(features, clip, features[:, 7:8], np.arange(3))
        learned = mouth_pairs.draw_details(pairs, None).targets
        assert np.array_equal(learned[:, :, ~inside], clip[:, :, ~inside])
        assert np.array_equal(learned[2], clip[2])  # another mouth than is drawn
        for one in learned[:2]:
            assert np.corrcoef(one.mean(0)[inside], drawn[0, 0][inside])[0, 1] > 0.9
            columns = one[:, 30:60, 40:80].mean((0, 1)).reshape(5, 8)  # whole teeth
            assert np.allclose(columns.mean(1), shade[40:80].reshape(5, 8).mean(1), atol=0.03)
            contrast = one[:, 30:60, 40:80][..., ~gaps[40:80]].mean() - one[:, 30:60, 40:80][..., gaps[40:80]].mean()
            assert 0.5 * 0.6 < contrast < 0.7 * 0.6

    def test_a_mouth_is_unlike_when_opening_stretch_or_jaw_is(self):
        def row(opening, stretch, jaw):
            values = np.zeros(N_PARAMETERS)
            values[[OFFSETS["paint"], OFFSETS["width"], OFFSETS["paint"] + 1]] = opening, stretch, jaw
            return values

        known = np.array([row(0.5, 0.1, 0.0), row(0.1, 0.0, 0.0)])
        alike = [row(0.54, 0.14, 0.06), row(0.1, 0.04, 0)]
        others = [row(0.56, 0.1, 0.0), row(0.5, 0.16, 0.0), row(0.5, 0.1, 0.09)]
        assert not mouth_pairs.are_unlike(np.array(alike), known).any()
        assert mouth_pairs.are_unlike(np.array(others), known).all()


class TestFootage:
    def test_the_reference_is_a_frame_with_closed_lips_and_no_hand_before_it(self, hopper, analyzer, monkeypatch):
        """The photo 60 times; a hand covers the mouth in frames 20 to 39, the lips seem most closed there."""
        points = next(analyzer.track([hopper])).points
        mouth = points[[mesh.RIGHT_MOUTH_CORNER, mesh.LEFT_MOUTH_CORNER], :2].mean(0).astype(int)
        frames, found = [], []
        for i in range(60):
            frame, one = hopper.copy(), points.copy()
            if 20 <= i < 40:
                frame[mouth[1] - 40 : mouth[1] + 60, mouth[0] - 70 : mouth[0] + 20] = (200, 150, 120)
            else:
                one[mesh.LOWER_LIP_MIDDLE, 1] += 3 + i / 10
            frames.append(frame)
            found.append(SimpleNamespace(points=one))
        cost = footage.portrait_cost(found)
        assert 20 <= min(cost, key=cost.get) < 40
        monkeypatch.setattr(video, "read_video", lambda path: iter(frames))
        chosen = footage.choose_reference("clip.mp4", found)
        assert not 20 <= chosen < 40

    def test_lips_put_where_they_are_give_the_still_row(self, hopper, analyzer):
        from sonic_ms.edge.rig import OFFSETS, build_rig

        points = next(analyzer.track([hopper])).points[:, :2].astype(np.float64) / 600
        rig = build_rig(points)
        opened = points.copy()
        opened[list(mesh.INNER_LOWER_LIP[1:-1] + mesh.OUTER_LOWER_LIP[1:-1]), 1] += 0.3 * rig.mouth[4]
        still, wide = (footage.parameter_row(rig, lips, np.zeros(6)) for lips in (points, opened))
        gap = OFFSETS["paint"]
        assert still[OFFSETS["width"]] == pytest.approx(0, abs=1e-6)
        assert wide[gap] - still[gap] == pytest.approx(0.3, abs=0.06)

    def test_lowered_teeth_leave_the_lips_and_stay_behind_the_lower_one(self, hopper):
        portrait = prepare_portrait(hopper, choose.find_mesh(hopper, FaceAnalyzer())[0], EdgeOptions())
        curves = random_curves(np.random.default_rng(0), 40)
        rows = frame_parameters(portrait.rig, curves, np.zeros((40, 6)))
        clip = footage.Footage(portrait, rows, None, np.arange(40), 40, [], hopper)
        lowered = footage.lower_the_teeth(clip, 0.2).parameters
        seam, teeth = OFFSETS["seam"], OFFSETS["teeth"]
        assert np.array_equal(rows, frame_parameters(portrait.rig, curves, np.zeros((40, 6))))
        assert np.array_equal(np.delete(lowered, [seam, teeth], 1), np.delete(rows, [seam, teeth], 1))
        assert np.allclose(lowered[:, seam] - rows[:, seam], 0.2)
        fall = lowered[:, seam] + lowered[:, teeth] - rows[:, seam] - rows[:, teeth]
        assert (fall > -1e-6).all() and (fall < 0.2 + 1e-6).all() and fall.max() > 0.19
        assert np.isclose(fall, 0, atol=1e-6).any()  # as much of them as the lower lip ever leaves stands out already
        edge = lowered[:, seam] + lowered[:, teeth]
        assert (edge >= rows[:, OFFSETS["target"] + 2 * TERMS] - LOWER_TEETH).all()

    def test_the_reference_is_read_as_generate_will_read_it(self, clip, run):
        """A tracked mesh differs a little from one found in a still: the painter would be told another face."""
        out, _ = run
        rgb = load_image(out / "portrait.png")
        portrait = prepare_portrait(rgb, choose.find_mesh(rgb, FaceAnalyzer())[0], EdgeOptions())
        own = footage.read_footage(clip).portrait
        rest = np.zeros((1, 8)), np.zeros((1, 6))
        assert np.array_equal(frame_parameters(own.rig, *rest), frame_parameters(portrait.rig, *rest))
        assert np.array_equal(own.crop, portrait.crop)

    def test_a_head_that_moves_takes_the_target_along(self, hopper):
        """The reference itself with its head moved is what the renderer makes of that pose."""
        landmarks = choose.find_mesh(hopper, FaceAnalyzer())[0]
        portrait = prepare_portrait(hopper, landmarks, EdgeOptions())
        still = footage.still_points(portrait, landmarks, hopper.shape)
        matrix, points = footage.aligned(landmarks, still)

        for pose in np.vstack([np.zeros(6), np.diag([0.03, 0.02, 0.05, 0.03, 0, 0])[:4]]):
            row = footage.parameter_row(portrait.rig, points, pose)
            features = mouth_pairs.move(portrait, row[None])[0]
            target = footage.rectangle(hopper, footage.move_head(matrix, row), portrait.rig.roi)
            skin = features[7] < 0.01
            assert np.abs(features[:3] - target)[:, skin].mean() < 0.01  # half a pixel beside: 0.030

    def test_clips_that_cannot_serve_are_one_line(self, hopper, tmp_path):
        def clip(name, frame, n):
            with video.VideoWriter(tmp_path / name, frame.shape[1::-1], None, 25) as writer:
                for _ in range(n):
                    writer.write(frame)
            return tmp_path / name

        with pytest.raises(FaceError, match="no face in any of 10 frames"):
            footage.read_footage(clip("none.mp4", np.zeros_like(hopper), 10))
        with pytest.raises(UsageError, match="20 frames with a face, expected at least 50"):
            footage.read_footage(clip("short.mp4", hopper, 20))
        with pytest.raises(UsageError, match="0 frames show the inside of the mouth"):
            footage.read_footage(clip("closed.mp4", hopper, 60))
