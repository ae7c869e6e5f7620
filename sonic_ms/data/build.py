"""`sonic-ms data build`: one video after the other -> its clips -> its shard -> a line of the index."""

import dataclasses
import os
import shutil
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from sonic_ms.data.clips import Encoders, Record
from sonic_ms.data.decode import frames_of, samples_of
from sonic_ms.data.filters import cut_clips
from sonic_ms.data.index import Index
from sonic_ms.data.shards import SUFFIXES, page_size, write_shard
from sonic_ms.data.sources import find_sources
from sonic_ms.data.tracking import track
from sonic_ms.errors import InputMissingError, OutputError, UsageError, VideoError, WeightsError
from sonic_ms.face import detect
from sonic_ms.files.digest import sha256_of, weights_digest
from sonic_ms.files.temporary import Temporary, remove_stale
from sonic_ms.media.audio import FPS

STORED = ("vae", "clip", "whisper")  # networks whose outputs are stored: other weights make other shards


def build(videos, out, config, model=None, note=print):
    """Build or go on building the shards of `videos` (see sources.py) in the folder `out`; returns the Index.

    model: folder of a converted sonic-base; with it latents, embeddings and audio states are stored. note: function of
    a line. A video that cannot be used is noted and passed over. Raises UsageError when no clip at all is left, and
    InputMissingError, OutputError, WeightsError.
    """
    sources, out = find_sources(videos), Path(out)
    fingerprint = weights_digest(model, STORED) if model else ""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write in {out}: {error.strerror}") from error
    index = Index.begin(out, dataclasses.asdict(config), fingerprint)
    _tidy(index, note)
    analyzer, encoders = detect.FaceAnalyzer(), Encoders(model) if model else None
    known = {(entry["sha256"], str(entry["spans"])): entry for entry in index.entries}
    for source in tqdm(sources, desc="videos", unit="video"):
        spans = [list(span) for span in source.spans]
        if not source.path.is_file():
            note(f"{source.path}: no such file; passed over")
            continue
        digest = sha256_of(source.path)
        if (digest, str(spans)) in known:
            before = known[digest, str(spans)]["video"]
            if before != str(source.path):
                note(f"{source.path}: the same as {before}; passed over")
            continue
        entry = {"video": str(source.path), "sha256": digest, "spans": spans}
        try:
            entry |= build_video(source, digest, out, config, analyzer, encoders)
        except (InputMissingError, VideoError) as error:
            entry["error"] = str(error)
            note(f"{source.path}: {error}; passed over")
        index.add(entry)
        known[digest, str(spans)] = entry
    if not index.shards():
        raise UsageError(f"no clip could be used: {summary(index)}; see {index.path}")
    return index


def build_video(source, digest, out, config, analyzer, encoders):
    """Entry of one video: what is in its shard, and what is not and why."""
    found = track(frames_of(source.path), analyzer)
    samples = samples_of(source.path)
    clips, rejected = cut_clips(found, samples, config, source.spans)
    rows = [{"start": r.first / FPS, "end": r.last / FPS, "reason": r.reason} for r in rejected]
    entry = {"seconds": len(found) / FPS, "clips": [], "rejected": rows}
    if not clips:
        return entry
    name = f"{digest[:16]}.mindrecord"
    if source.spans:
        name = f"{digest[:16]}-{round(1000 * source.spans[0][0])}.mindrecord"
    names = [f"{Path(name).stem}-{clip.first:06d}" for clip in clips]
    page = page_size(max(clip.last - clip.first for clip in clips), config.resolution)
    try:
        with Temporary(out, is_folder=True) as part:
            write_shard(part / name, _records(source.path, names, clips, samples, config, encoders), page)
            files = [part / (name + suffix) for suffix in SUFFIXES]
            entry["bytes"] = [path.stat().st_size for path in files]
            entry["shard_sha256"] = [sha256_of(path) for path in files]
            for path in files:
                os.replace(path, out / path.name)
    except (OSError, RuntimeError) as error:  # MindRecord has no kind of its own for a full disk
        if isinstance(error, RuntimeError) and shutil.disk_usage(out).free > 1 << 24:
            raise
        raise OutputError(f"cannot write shard {name} in {out} (disk full?); what was finished is kept") from error
    for clip, one in zip(clips, names):
        figures = {key: round(value, 4) for key, value in clip.figures.items()}
        row = {"id": one, "start": clip.first / FPS, "end": clip.last / FPS, "crop": list(clip.crop), **figures}
        entry["clips"].append(row)
    return entry | {"shard": name}


def _records(path, names, clips, samples, config, encoders):
    """Yield the records of a video's clips; they come one after the other and do not overlap."""
    queue = [Record(name, clip, config.resolution, encoders) for name, clip in zip(names, clips)]
    for number, rgb in enumerate(frames_of(path)):
        record = queue[0]
        if number >= record.clip.first:
            record.add(rgb)
        if number + 1 == record.clip.last:
            yield record.finish(samples)
            queue.pop(0)
            if not queue:
                return


def _tidy(index, note):
    """Remove what a killed build left behind, and forget videos whose shard is damaged: they are built again."""
    folder = index.path.parent
    remove_stale(folder)
    for entry in index.shards():
        try:
            index.check_shard(entry)
        except WeightsError as error:
            note(f"{error}: doing that now")
            index.entries.remove(entry)
    known = {entry["shard"] + suffix for entry in index.shards() for suffix in SUFFIXES}
    for path in folder.glob("*.mindrecord*"):
        if path.name not in known:
            path.unlink()
    index.rewrite()


def summary(index):
    """One line: clips, their length, and how often which reason."""
    clips = [clip for entry in index.entries for clip in entry.get("clips", ())]
    reasons = Counter(_kind(row["reason"]) for entry in index.entries for row in entry.get("rejected", ()))
    reasons += Counter("unreadable" for entry in index.entries if "error" in entry)
    seconds = sum(clip["end"] - clip["start"] for clip in clips)
    parts = [f"{len(index.entries)} videos", f"{len(clips)} clips of {seconds:.0f} s"]
    return ", ".join(parts + [f"{count} x {reason}" for reason, count in reasons.most_common()])


def _kind(reason):
    """A reason without its numbers, so that equal ones can be counted."""
    return {
        "face": "face too small" if "pixels high" in reason else "face reaches out of the picture",
        "sharpness": "blurred",
        "speech": "silent",
        "mouth": "out of sync",
        "translation": "moves too much",
        "expression": "moves too much",
    }.get(reason.split()[0], "too short between cuts" if "between cuts" in reason else _plain(reason))


def _plain(reason):
    return "several faces" if "faces" in reason else reason
