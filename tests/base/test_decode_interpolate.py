"""Decoding and doubling are streams: what is held, and that order and values are kept."""

import tracemalloc

import numpy as np

from sonic_ms.base.decode import decode_frames, to_pixels, to_unit
from sonic_ms.base.interpolate import interpolate


def decoder(latents):
    """Frame values equal the latents' first value; a chunk is one block of memory, as from a network."""
    return np.repeat(latents[:, :1, :1, :1], 3, 1) * np.ones((1, 3, 64, 64), np.float32)


def test_chunks_keep_the_order():
    latents = np.arange(11, dtype=np.float32).reshape(11, 1, 1, 1) * np.ones((1, 4, 2, 2), np.float32)
    sizes = []

    def counting(part):
        sizes.append(len(part))
        return decoder(part)

    assert [int(frame[0, 0, 0]) for frame in decode_frames(counting, latents, 4)] == list(range(11))
    assert sizes == [4, 4, 3]


def test_doubling():
    frames = [np.full((3, 2, 2), value, np.float32) for value in (0, 2, 6)]
    out = list(interpolate(iter(frames), lambda a, b: (a + b) / 2))
    assert [float(frame[0, 0, 0]) for frame in out] == [0, 1, 2, 4, 6]
    assert len(list(interpolate(iter(frames[:1]), None))) == 1


def peak_bytes(count):
    """Most memory the stream of `count` frames holds at once, latents and decoder included."""
    latents = np.zeros((count, 4, 2, 2), np.float32)
    tracemalloc.start()
    for _ in interpolate(map(to_unit, decode_frames(decoder, latents, 4)), lambda a, b: (a + b) / 2):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_length():
    frame = 3 * 64 * 64 * 4
    peak_bytes(8)  # first use of anything
    assert peak_bytes(400) <= peak_bytes(20) + frame / 2
    assert peak_bytes(400) < 20 * frame  # two chunks of four, and what the decoder and the doubling need


def test_pixels_are_clipped_and_rounded():
    frame = np.array([-5, -1, 0, 0.5, 1, 7], np.float32).reshape(1, 1, 6).repeat(3, 0)
    assert to_pixels(to_unit(frame))[0, :, 0].tolist() == [0, 0, 128, 191, 255, 255]
