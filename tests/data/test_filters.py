"""Sources, scene cuts, buckets and segments: on made-up numbers with known answers."""

import numpy as np
import pytest

from sonic_ms.data import filters
from sonic_ms.data.config import DataConfig
from sonic_ms.data.filters import buckets, cut_clips, segments
from sonic_ms.data.sources import find_sources
from sonic_ms.data.tracking import Track, find_cuts, follow, large_faces
from sonic_ms.errors import InputMissingError, UsageError
from sonic_ms.face.detect import Face
from sonic_ms.face.mesh import average_face


def still_track(n, box=(60, 40, 120, 160)):
    """A face that never moves, 300x300 pixels."""
    points = np.repeat(average_face(box)[None, :, :2], n, 0)
    return Track(points, np.ones(n, int), np.full(n, 100.0), np.zeros(n, bool), (300, 300))


class TestSources:
    def test_a_folder_is_searched_in_order_and_a_video_named_twice_counts_once(self, tmp_path):
        for name in ("b.mp4", "a.MOV", "deep/c.mp4", "notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        found = find_sources([tmp_path, tmp_path / "b.mp4"])
        assert [source.path.name for source in found] == ["a.MOV", "b.mp4", "c.mp4"]

    def test_a_list_names_videos_with_blanks_and_spans(self, tmp_path):
        path = tmp_path / "list.txt"
        path.write_text("# HDTF\nWDA Joe 1.mp4 0:10 0:58.5 80 125\n\nsub/whole.mp4\n")
        one, other = find_sources([path])
        assert one.path == tmp_path / "WDA Joe 1.mp4" and one.spans == ((10.0, 58.5), (80.0, 125.0))
        assert other.path == tmp_path / "sub/whole.mp4" and other.spans == ()

    def test_hdtf_lists_are_read_as_published(self, tmp_path):
        """Lines of the form of RD_annotion_time.txt, one with a blank at its end."""
        path = tmp_path / "RD_annotion_time.txt"
        path.write_text("Radio1.mp4 00:20-01:35\nRadio11.mp4 00:30-01:00 01:30-02:30 \n")
        one, other = find_sources([path])
        assert one.path == tmp_path / "Radio1.mp4" and one.spans == ((20.0, 95.0),)
        assert other.path == tmp_path / "Radio11.mp4" and other.spans == ((30.0, 60.0), (90.0, 150.0))

    def test_vfhq_clips_of_one_video_are_its_spans(self, tmp_path):
        """Text files a clip, named and laid out as VFHQ's meta_info."""
        (tmp_path / "-2KH+a_b.webm").write_bytes(b"x")
        lines = "H 720\nW 1280\nFPS 24.0\n\nCROP 400 40 1000 640\n"
        paths = [tmp_path / f"Clip+-2KH+a_b+P0+{clip}.txt" for clip in ("C1+F480-720", "C0+F24-240")]
        for path in paths:
            path.write_text(lines)
        (found,) = find_sources(paths)
        assert found.path == tmp_path / "-2KH+a_b.webm" and found.spans == ((1.0, 10.0), (20.0, 30.0))
        paths[0].write_text("H 720\nW 1280\n")
        with pytest.raises(UsageError, match=r"F480-720\.txt is no clip of VFHQ; expected .* a line `FPS 25.0`"):
            find_sources(paths)

    def test_a_video_that_is_named_whole_is_used_whole(self, tmp_path):
        path = tmp_path / "list.txt"
        path.write_text("a.mp4 10-20\nb.mp4 1-5\na.mp4 30-40\nb.mp4\n")
        one, other = find_sources([path])
        assert one.spans == ((10.0, 20.0), (30.0, 40.0)) and other.spans == ()

    @pytest.mark.parametrize("line", ["a.mp4 10", "a.mp4 20 10", "a.mp4 20-10", "a.mp4 10-20 30"])
    def test_a_list_with_half_a_span_is_refused_by_line(self, tmp_path, line):
        path = tmp_path / "list.txt"
        path.write_text(f"ok.mp4\n{line}\n")
        with pytest.raises(UsageError, match="line 2"):
            find_sources([path])

    def test_empty_and_missing_places_are_one_line(self, tmp_path):
        with pytest.raises(UsageError, match="holds no video"):
            find_sources([tmp_path])
        with pytest.raises(InputMissingError, match="no such file or folder"):
            find_sources([tmp_path / "gone"])


class TestCuts:
    def test_a_jump_of_the_picture_is_a_cut_and_a_shaking_camera_is_not(self):
        differences = np.full(60, 2.0)
        differences[[0, 30]] = 0, 40
        assert np.flatnonzero(find_cuts(differences)).tolist() == [30]
        assert not find_cuts(np.full(60, 30.0)).any()

    def test_a_face_in_the_background_does_not_count(self):
        faces = [Face((0, 0, height, height), 1.0, np.zeros((6, 2))) for height in (100, 50, 30)]
        assert large_faces(faces) == 2 and large_faces([]) == 0


class TestFollow:
    def test_a_lost_face_is_searched_for_only_twice_a_second(self):
        class Analyzer:
            asked = 0

            def track(self, frames):
                for frame in frames:
                    self.asked += 1
                    yield "face" if frame == "face" else None

        analyzer, frames = Analyzer(), ["face"] * 5 + ["wall"] * 40 + ["face"] * 20
        found = list(follow(frames, analyzer))
        assert [frame for frame, _ in found] == frames and analyzer.asked < 30
        assert [one for _, one in found] == ["face"] * 5 + [None] * 43 + ["face"] * 17


class TestSegments:
    def test_cuts_lost_faces_jumps_and_spans_end_a_piece(self):
        track = still_track(400)
        track.cut[100] = True
        track.points[200:210] = np.nan
        track.points[300:] += 150
        found = segments(track, ())
        assert found == [(0, 100, ""), (100, 200, ""), (200, 210, "no face"), (210, 300, ""), (300, 400, "")]
        assert segments(still_track(100), ((1.0, 2.0),)) == [
            (0, 25, "not listed"),
            (25, 50, ""),
            (50, 100, "not listed"),
        ]

    def test_long_scenes_become_clips_of_equal_length_and_short_ones_are_named(self):
        track = still_track(700)
        track.cut[650] = True
        clips, rejected = cut_clips(track, None, DataConfig())
        assert clips == []
        assert [(r.first, r.last) for r in rejected] == [(0, 216), (216, 433), (433, 650), (650, 700)]
        assert [r.reason for r in rejected[:3]] == ["no sound"] * 3
        assert rejected[3].reason == "2.0 s between cuts, expected at least 3 s"

    @pytest.mark.parametrize(
        "box, change, reason",
        [
            ((60, 40, 50, 60), {}, "pixels high"),
            ((60, 40, 120, 160), {"faces": np.full(100, 2)}, "2 faces"),
            ((60, 40, 120, 160), {"sharpness": np.full(100, 3.0)}, "sharpness 3.0"),
            ((-40, 40, 120, 160), {}, "out of the picture"),
            ((10, 40, 120, 160), {"size": (135, 300)}, "no square"),
        ],
    )
    def test_each_fault_is_the_reason(self, box, change, reason):
        track = still_track(100, box)
        track = Track(**{**vars(track), **change})
        clips, rejected = cut_clips(track, np.zeros(64000, np.float32), DataConfig())
        assert not clips and reason in rejected[0].reason

    def test_silence_is_a_reason(self):
        clips, rejected = cut_clips(still_track(100), np.zeros(64000, np.float32), DataConfig())
        assert not clips and rejected[0].reason.startswith("speech in 0 %")


class TestBuckets:
    still = np.repeat(average_face((60, 40, 120, 160))[None, :, :2], 100, 0).astype(np.float64)
    swing = np.sin(np.arange(100) * 2 * np.pi / 25)

    def test_a_still_face_has_none(self):
        assert buckets(self.still) == pytest.approx((0, 0), abs=1e-3)

    def test_a_head_that_sways_moves_only_the_translation_in_proportion(self):
        small, large = (buckets(self.still + a * self.swing[:, None, None] * [1, 0]) for a in (5, 10))
        assert small[0] > 1 and large[0] == pytest.approx(2 * small[0], rel=1e-3)
        assert small[1] == pytest.approx(0, abs=1e-3)

    def test_lips_that_move_within_the_box_move_only_the_expression(self):
        points = self.still.copy()
        points[:, [13, 14, 17, 87, 317]] += 6 * self.swing[:, None, None] * [0, 1]
        translation, expression = buckets(points)
        assert translation == pytest.approx(0, abs=1e-3) and expression > 1

    def test_distance_to_the_camera_does_not_matter(self):
        points = self.still + 5 * self.swing[:, None, None] * [1, 0]
        assert buckets(points * 3) == pytest.approx(buckets(points), rel=1e-4)

    def test_a_clip_that_moves_more_than_128_is_refused(self, monkeypatch):
        track, sound = still_track(100), np.zeros(64000, np.float32)
        monkeypatch.setattr(filters, "voice_activity", lambda samples: np.ones(100))
        monkeypatch.setattr(filters, "sync", lambda points, samples: (0, 0.9))
        assert len(cut_clips(track, sound, DataConfig())[0]) == 1
        monkeypatch.setattr(filters, "buckets", lambda points: (20.0, 131.0))
        clips, rejected = cut_clips(track, sound, DataConfig())
        assert not clips and rejected[0].reason == "expression bucket 131, expected at most 128"
