"""Audio of sonic-base to what the UNet hears: Whisper states, audio tokens and motion buckets of every frame. numpy."""

import numpy as np

from sonic_ms.base.units import ADAPTER_BATCH
from sonic_ms.media.audio import log_mel

STATE_SAMPLES = 320  # a Whisper state stands for 20 ms: 50 a second
TICK_STATES = 2  # a tick is a frame of the finished 25 fps video
FRAME_STATES = 2 * TICK_STATES  # frames are generated at 12.5 a second
TOKEN_LEAD, BUCKET_LEAD = 4, 24  # states before a frame that its tokens and its buckets hear
BUCKET_SCALE, BUCKET_OFFSET = 16, 16  # network output -> motion bucket


def whisper_states(encoder, samples, positions):
    """States of a recording, (n // 640 * 2, layers + 1, c): every chunk goes through the encoder once.

    encoder(mel (1, 80, 2 * positions)) -> (1, positions, layers + 1, c). A chunk is `positions` states long.
    """
    length = len(samples) // (STATE_SAMPLES * TICK_STATES) * TICK_STATES
    chunk = positions * STATE_SAMPLES
    states = [
        encoder(log_mel(samples[start : start + chunk], pad_to=chunk)[None])[0]
        for start in range(0, length * STATE_SAMPLES, chunk)
    ]
    return np.concatenate(states)[:length]


def frame_windows(states, frames, length, lead):
    """States around each frame: (frames, length, ...), with zeros before the first and after the last state."""
    needed = (frames - 1) * FRAME_STATES + length
    padded = np.zeros((max(needed, lead + len(states)), *states.shape[1:]), np.float32)
    padded[lead : lead + len(states)] = states
    return np.stack([padded[start : start + length] for start in range(0, frames * FRAME_STATES, FRAME_STATES)])


def audio_tokens(adapter, states, frames, config, batch=ADAPTER_BATCH):
    """(audio tokens of every frame (frames, 32, d), tokens of silence (1, 32, d)).

    adapter: audio2token as a function of (batch, seq_len, blocks, channels). States of all layers are used.
    """
    windows = frame_windows(states, frames, config.seq_len, TOKEN_LEAD)
    silence = np.zeros_like(windows[:1])
    return in_batches(adapter, batch, windows), in_batches(adapter, batch, silence)


def motion_buckets(adapter, states, embedding, frames, config, batch=ADAPTER_BATCH):
    """Translation and expression bucket of every frame, (frames, 2).

    adapter: audio2bucket as a function of (batch, seq_len, 1, channels) and (batch, clip_channels). Only the last
    layer's states are used.
    """
    windows = frame_windows(states[:, -config.blocks :], frames, config.seq_len, BUCKET_LEAD)
    embeddings = np.repeat(embedding[None], frames, 0)
    return in_batches(adapter, batch, windows, embeddings) * BUCKET_SCALE + BUCKET_OFFSET


def in_batches(function, batch, *arrays):
    """function over arrays (n, ...) in batches of one fixed size, so that one graph will do; (n, ...)."""
    count = len(arrays[0])
    out = []
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)  # the last batch repeats the last row
        out.append(function(*[np.ascontiguousarray(array[rows]) for array in arrays])[: count - start])
    return np.concatenate(out)
