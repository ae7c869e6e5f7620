"""MindRecord shards: one file for the clips of one video, and its index (.db), which MindRecord keeps beside it.

Fields of a record: `id`; `buckets` (2,) float32; `meta`, JSON with the shapes of the arrays, the lengths of the JPEGs,
the face box in the crop and the number of the reference frame; and as bytes, each with a full stop behind it because
readers strip zeros from the end: `frames` (JPEGs, 25 a second), `audio` (int16, 16 kHz), `mask` (uint8) and, when they
were computed, `latents` (12.5 a second), `image_latents`, `clip_embedding`, `whisper_states` (float16).
"""

import json

import numpy as np

from sonic_ms.errors import UsageError, WeightsError
from sonic_ms.files.reading import parse_json

ENCODED = dict.fromkeys(("latents", "image_latents", "clip_embedding", "whisper_states"), np.float16)
ARRAYS = {"audio": np.int16, "mask": np.uint8, **ENCODED}
SUFFIXES = ("", ".db")
LATENT_FPS = 12.5
LARGEST_PAGE = 1 << 28  # bytes: MindRecord takes no larger one, and every record has to fit into a page
JPEG_BYTES = 1.5  # a pixel, at JPEG_QUALITY: more than footage takes, about what noise takes
ARRAY_BYTES = 1 << 24  # all but the pictures


def page_size(frames, side):
    """Bytes of the pages of a shard whose longest clip has `frames` pictures of side x side pixels. What a page does
    not fill takes no room on the disk: the file is sparse."""
    needed = frames * side * side * JPEG_BYTES + ARRAY_BYTES
    return min(1 << int(np.ceil(np.log2(needed))), LARGEST_PAGE)


def write_shard(path, records, page):
    """Write an iterator of records (clips.Record.finish), all with or all without networks' outputs.

    page: from page_size. UsageError for a record that does not fit into it.
    """
    from mindspore.mindrecord import FileWriter

    writer = None
    for record in records:
        arrays = {name: dtype for name, dtype in ARRAYS.items() if name in record}
        meta = {"shapes": {name: record[name].shape for name in arrays}, "jpegs": [len(one) for one in record["jpegs"]]}
        meta |= {"box": record["box"], "reference": record["reference"]}
        row = {name: record[name].astype(dtype).tobytes() + b"." for name, dtype in arrays.items()}
        row |= {"frames": b"".join(record["jpegs"]) + b".", "id": record["id"], "meta": json.dumps(meta)}
        row["buckets"] = record["buckets"]
        if writer is None:
            writer = FileWriter(str(path), 1, overwrite=True)
            writer.set_page_size(page)
            schema = {name: {"type": "bytes"} for name in (*arrays, "frames")}
            schema |= {"id": {"type": "string"}, "meta": {"type": "string"}}
            writer.add_schema(schema | {"buckets": {"type": "float32", "shape": [2]}}, "talking clips")
        size = sum(len(row[name]) for name in (*arrays, "frames"))
        if size >= page:
            raise UsageError(
                f"clip {record['id']} takes {size >> 20} MB, a shard holds at most {page >> 20} MB a clip; choose a "
                "smaller resolution or max_seconds"
            )
        writer.write_raw_data([row])
    writer.commit()


def read_rows(path, numbers=None, columns=None):
    """Rows of a shard by mindspore.dataset, all or those with the given numbers, as dicts of numpy arrays."""
    import mindspore.dataset as ds

    options = {"sampler": ds.SubsetSampler(list(numbers))} if numbers is not None else {"shuffle": False}
    try:
        rows = ds.MindDataset(str(path), columns_list=columns, num_parallel_workers=1, **options)
        return list(rows.create_dict_iterator(num_epochs=1, output_numpy=True))
    except RuntimeError as error:
        raise WeightsError(f"shard {path} cannot be read, it is damaged; build it again") from error


def unpack(row):
    """Row -> {"id", "meta" (dict), "buckets", arrays of ARRAYS that are there}."""
    meta = _meta(row)
    out = {"id": _text(row["id"]), "meta": meta, "buckets": row["buckets"]}
    for name, dtype in ARRAYS.items():
        if name in row:
            try:
                out[name] = np.frombuffer(row[name].tobytes()[:-1], dtype).reshape(meta["shapes"][name])
            except (LookupError, TypeError, ValueError) as error:
                raise WeightsError(f"clip {out['id']} is damaged: {name} is not of its shape ({error})") from error
    return out


def pictures(row):
    """Frames of a row, uint8 (n, side, side, 3)."""
    import cv2

    data, frames, start = np.frombuffer(row["frames"].tobytes(), np.uint8), [], 0
    try:
        for length in _meta(row)["jpegs"]:
            frames.append(cv2.imdecode(data[start : start + length], cv2.IMREAD_COLOR)[:, :, ::-1])
            start += length
        return np.stack(frames)
    except (LookupError, TypeError, ValueError, cv2.error) as error:  # None where there is no JPEG
        raise WeightsError(f"clip {_text(row['id'])} is damaged: its pictures cannot be read") from error


def _meta(row):
    """The description of a record, an object."""
    problem = f"clip {_text(row['id'])} is damaged: its description is not JSON"
    meta = parse_json(_text(row["meta"]), problem)
    if not isinstance(meta, dict):
        raise WeightsError(f"{problem} of an object")
    return meta


def _text(value):
    value = value.item() if isinstance(value, np.ndarray) else value
    return value.decode() if isinstance(value, bytes) else str(value)
