"""The sound of a file as samples: which track, which channels, and all that decodes, whatever its time stamps say.

Raw samples leave ffmpeg one after the other, without stamps: pauses, late starts and negative stamps neither add nor
cut anything. `load_audio` and the VideoWriter both take them from here, so the mouth and the sound cannot part.
"""

import math
import mmap
import re

import numpy as np

from sonic_ms.errors import AudioError
from sonic_ms.media.ffmpeg import MAX_ERROR_RATE, Decoder, blame_host, survey
from sonic_ms.media.kinds import require_file, what_is

LOST = 0.1  # share of a recording that may be missing before it counts as corrupt
# A downmix cancels where it keeps less than CANCELLED of the power that unrelated channels would leave, in at least
# CANCELLED_SHARE of the blocks within AUDIBLE of the loudest.
CANCELLED, CANCELLED_SHARE, AUDIBLE = 0.1, 0.2, 1e-3
BLOCKS_A_SECOND = 10
EXACT = {"wav", "w64", "aiff", "au"}  # containers whose length is that of their samples, not a stamp or a guess


def require_recording(path):
    """Raise InputMissingError or AudioError unless `path` is a file with something in it."""
    require_file(path, f"audio {path}")
    if path.stat().st_size == 0:
        raise AudioError(f"audio {path}: the file has 0 bytes, expected a recording; export it again")


def require_sound(path, header):
    """Raise AudioError unless `header` (MediaHeader or None) has an audio track."""
    if header is None:
        known = what_is(path)
        found = f" (it is a {known[0]})" if known else ""
        raise AudioError(
            f"audio {path}: not a media file that ffmpeg reads{found}; expected wav, mp3, m4a, flac, ogg or a video "
            f"with sound"
        )
    if header.audio is None:
        raise AudioError(f"audio {path}: has no audio track; expected a recording with speech")


def choose_track(path, header, seconds, rate, has_speech):
    """(Track, notes): the default track, or if it has no speech in its first `seconds`, the first one that has.

    rate: Hz of the samples that `has_speech`, a function of float32 (n,), gets.
    """
    order = sorted(header.tracks, key=lambda track: not track.default)  # stable: otherwise as in the file
    if len(order) == 1:
        return order[0], []
    for track in order:
        channel = channel_instead(path, track, rate, seconds)
        if has_speech(decode_mono(path, track, rate, seconds, channel)[0]):
            break
    else:
        track = order[0]
    names = [header.tracks.index(one) + 1 for one in order]
    used = header.tracks.index(track) + 1
    silent = [str(name) for name in names[: order.index(track)]]
    why = f"no speech was found in track {', '.join(silent)}" if silent else "the others are left out"
    return track, [f"recording: track {used} of {len(order)} is used, {why}"]


def blocks(path, track, rate, channels, name):
    """Context manager; its `read` gives float32 samples of `track` as bytes, `channels` interleaved, at `rate` Hz."""
    options = ["-map", f"0:{track.index}", "-ac", str(channels), "-ar", str(rate), "-f", "f32le"]
    return Decoder(path, options, name, ["-max_error_rate", str(MAX_ERROR_RATE)])


def decode_mono(path, track, rate, seconds, channel=None):
    """(samples (n,) float32, at most `seconds` of them; exit code of ffmpeg or None if it was stopped there; remarks).

    channel: take this one instead of the mean of all.
    """
    width = 1 if channel is None else track.channels
    limit = 4 * width * math.ceil(seconds * rate)
    mono, read, rest = bytearray(), 0, b""
    with blocks(path, track, rate, width, f"audio {path}") as decoder:
        while read < limit:
            data = decoder.read(min(1 << 20, limit - read))
            if not data:
                code, remarks = decoder.finish()
                break
            read += len(data)
            if width > 1:
                data = rest + data
                whole = len(data) // (4 * width) * 4 * width
                rest = data[whole:]
                data = np.frombuffer(data[:whole], "<f4").reshape(-1, width)[:, channel].tobytes()
            mono += data
        else:
            code, remarks = None, []
    del mono[len(mono) // 4 * 4 :]
    return np.frombuffer(mono, "<f4"), code, remarks


def channel_instead(path, track, rate, seconds):
    """Index of the channel to take because the downmix of `track` cancels, or None."""
    if track.channels < 2:
        return None
    width, size = 4 * track.channels, rate // BLOCKS_A_SECOND

    def pieces():
        with blocks(path, track, rate, track.channels, f"audio {path}") as decoder:
            for _ in range(math.ceil(seconds * BLOCKS_A_SECOND)):
                data = decoder.read_all(size * width)
                if len(data) < size * width:
                    return
                yield np.frombuffer(data, "<f4").reshape(size, track.channels)

    return cancelling(pieces())


def cancelling(pieces):
    """Index of the loudest channel if the mean of the channels cancels, else None; pieces: arrays (m, channels).

    Differences of neighbouring samples are compared, so that hum below the voice does not count.
    """
    mixed, single = [], []
    for piece in pieces:
        steps = np.diff(np.asarray(piece, np.float32), axis=0)
        mixed.append(np.square(steps.mean(axis=1)).sum())
        single.append(np.square(steps).sum(axis=0))
    if not single:
        return None
    mixed, single = np.array(mixed), np.array(single)  # (blocks,), (blocks, channels)
    unrelated = single.sum(axis=1) / single.shape[1] ** 2
    audible = unrelated > AUDIBLE * unrelated.max()
    if not audible.any() or (mixed < CANCELLED * unrelated)[audible].mean() < CANCELLED_SHARE:
        return None
    return int(single.sum(axis=0).argmax())


def judge(path, header, track, code, remarks, seconds, limit):
    """Notes on a decode that ffmpeg complained about; raises AudioError if too much of the recording is lost.

    code: ffmpeg's exit code, None if it was stopped at `limit` seconds; seconds: how much was decoded. What is lost is
    counted in packets and compared stamp with stamp: neither a gap in the stamps nor a guessed length is a loss.
    """
    if code is None or (code == 0 and not remarks and not header.estimated):
        return []
    name = f"audio {path}"
    blame_host(name, code, remarks)
    reason = remarks[0] if remarks else f"ffmpeg ended with code {code}" if code else "the rest is no sound"
    corrupt = code != 0 or any("Not yet implemented" in line for line in remarks)
    if not corrupt:
        last, sound, garbage = survey(path, track.index, name)
        if header.estimated:  # files without an index are nothing but sound and tags
            garbage += max(path.stat().st_size - _tag_bytes(path) - sound - garbage, 0)
        promised = 0 if header.estimated else min(header.seconds or 0, limit)
        short = max(last, last - header.start) < (1 - LOST) * promised and seconds < (1 - LOST) * promised
        corrupt = garbage > LOST * (sound + garbage) or short
    if corrupt:
        raise AudioError(f"{name}: corrupt, only {seconds:.1f} s could be decoded ({reason}); export it again")
    if not remarks:
        return []
    return [f"recording: damaged or joined in places ({reason}); the {seconds:.1f} s that decode are used"]


def _tag_bytes(path):
    """Bytes of the ID3 and APE tags of a file: titles, covers, lyrics."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tags = [sum((byte & 127) << shift for byte, shift in zip(found.group(1), (21, 14, 7, 0))) + 10
                for found in re.finditer(rb"ID3[\x02-\x04]\x00.([\x00-\x7f]{4})", data, re.DOTALL)]  # fmt: skip
        tags += [int.from_bytes(found.group(1), "little") + 32
                 for found in re.finditer(rb"APETAGEX.{4}(.{4})", data[-256:], re.DOTALL)]  # fmt: skip
        return sum(tags)
