import numpy as np
import pytest

from sonic_ms.data.mouths import MouthClip, load_clip, load_clips, save_clip
from sonic_ms.errors import InputMissingError, UsageError


def clip(name="one", offset=2, n=60, frames=58):
    rng = np.random.default_rng(0)
    measures = {m: rng.random(frames).astype(np.float32) for m in ("opening", "width", "inner_width", "jaw")}
    return MouthClip(name, rng.uniform(-0.5, 0.5, n * 640).astype(np.float32), measures, offset, "anna", "en")


def test_a_clip_is_read_as_it_was_written(tmp_path):
    one = clip()
    again = load_clip(save_clip(one, tmp_path))
    assert (again.name, again.offset, again.speaker, again.lang) == ("one", 2, "anna", "en")
    np.testing.assert_allclose(again.samples, one.samples, atol=1e-4)
    for name, values in one.measures.items():
        np.testing.assert_array_equal(again.measures[name], values)
    assert [path.name for path in tmp_path.iterdir()] == ["one.npz"]


@pytest.mark.parametrize("offset", [-3, 0, 5])
def test_measures_are_put_beside_their_sound(offset):
    one = clip(offset=offset)
    rows = one.heard("opening", "jaw")
    assert rows.shape == (60, 2)
    for i in range(60):
        inside = 0 <= i + offset < 58
        assert (rows[i, 0] == one.measures["opening"][i + offset]) if inside else np.isnan(rows[i]).all()


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputMissingError, match="no such folder"):
        load_clips(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no measured mouths"):
        load_clips(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"PK nonsense")
    with pytest.raises(UsageError, match=r"a\.npz is not an npz"):
        load_clips(tmp_path)
    np.savez(tmp_path / "a.npz", audio=np.zeros(16000, np.int16))
    with pytest.raises(UsageError, match="lacks opening"):
        load_clip(tmp_path / "a.npz")
    fields = {m: np.zeros(25, np.float32) for m in ("opening", "width", "jaw")}
    np.savez(tmp_path / "a.npz", audio=np.zeros(16000, np.int16), offset=0, fps=30, speaker="a", lang="en", **fields)
    with pytest.raises(UsageError, match="25 frames at 30 a second"):
        load_clip(tmp_path / "a.npz")
