"""An index of training data that a stranger, or a fault of the disk, has written."""

import json

import numpy as np
import pytest

from sonic_ms.data.index import MAX_LINE_BYTES, Index
from sonic_ms.data.shards import pictures, unpack
from sonic_ms.errors import InputMissingError, WeightsError

HEADER = {"config": {"a": 1}, "model": "", "version": 1}
ENTRY = {"video": "v.mp4", "sha256": "0", "spans": [[0, 1.5]], "seconds": 2.0, "shard": "s.mindrecord", "bytes": [1, 1],
         "shard_sha256": ["0", "0"], "clips": [{"id": "x", "start": 0, "end": 1}],
         "rejected": [{"start": 1, "end": 2, "reason": "face x"}]}  # fmt: skip


def write(folder, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n", encoding="latin1")


def test_a_sound_index_is_read_and_a_line_that_was_cut_off_left_out(tmp_path):
    failed = {"video": "w.mp4", "sha256": "1", "spans": [], "error": "no video"}
    write(tmp_path, HEADER, ENTRY, failed, json.dumps(ENTRY)[:-9])
    assert Index.open(tmp_path).entries == [ENTRY, failed]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard": "../s.mindrecord"}, "shard is .*, expected the name of a file in this folder"),
        ({"shard": "/etc/passwd"}, "expected the name of a file"),
        ({"shard": ".."}, "expected the name of a file"),
        ({"shard": 5}, "expected the name of a file"),
        ({"bytes": 1}, "bytes is 1, expected two lengths"),
        ({"bytes": [1, None]}, "expected two lengths"),
        ({"shard_sha256": ["0"]}, "expected two sha256"),
        ({"clips": None}, "expected a list of clips"),
        ({"clips": [{"start": 0, "end": float("nan")}]}, "expected a list of clips"),
        ({"rejected": [{"reason": ""}]}, "parts with a reason"),
        ({"spans": [[1]]}, "spans is"),
        ({"video": None}, "video is None, expected a path"),
        ({"sha256": []}, "sha256 is"),
        ({"error": 1}, "error is 1, expected a text"),
    ],
)
def test_a_line_of_another_shape_is_named(tmp_path, change, message):
    write(tmp_path, HEADER, ENTRY | change)
    with pytest.raises(WeightsError, match=rf"index.jsonl, line 2: .*{message}") as error:
        Index.open(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((HEADER, "[" * 100_000, ENTRY), "line 2 is damaged .*nested too deeply"),
        ((HEADER, "\xff", ENTRY), "line 2 is damaged"),
        ((HEADER, "5"), "line 2: is 5, expected the object of a video"),
        ((HEADER, '"' + "x" * MAX_LINE_BYTES + '"'), "line 2 is damaged .more than 4194304 bytes"),
        (("5",), "line 1: is not the beginning"),
        (("",), "line 1 is damaged"),
        (({"version": 1},), "lacks config or model"),
        (({**HEADER, "version": 2},), "of an index of version 1"),
    ],
)
def test_lines_that_are_none_are_named(tmp_path, rows, message):
    write(tmp_path, *rows)
    with pytest.raises(WeightsError, match=message):
        Index.open(tmp_path)


def test_a_folder_without_an_index(tmp_path):
    with pytest.raises(InputMissingError, match="is no folder of `sonic-ms data build`"):
        Index.open(tmp_path)


@pytest.mark.parametrize(
    "meta", ["{", "5", "{}", '{"shapes": {"audio": [3]}, "jpegs": [4]}', '{"shapes": 1, "jpegs": 1}']
)
def test_a_record_with_another_description_is_named(meta):
    row = {"id": "clip", "meta": meta, "buckets": None, "audio": np.zeros(5, np.uint8), "frames": np.zeros(5, np.uint8)}
    for read in (unpack, pictures):
        with pytest.raises(WeightsError, match="clip clip is damaged"):
            read(row)
