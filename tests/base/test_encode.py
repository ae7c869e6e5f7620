"""Windows of Whisper states around each frame, and chunks of half a minute."""

import numpy as np

from sonic_ms.base.configs import AdapterConfig
from sonic_ms.base.encode import audio_tokens, frame_windows, in_batches, motion_buckets, whisper_states


def test_frames_read_the_states_upstream_reads():
    states = np.arange(1, 41, dtype=np.float32).reshape(40, 1)  # 40 states: 0.8 s, 10 frames
    padded = np.concatenate([np.zeros(4), states[:, 0], np.zeros(6)])
    windows = frame_windows(states, 10, 10, 4)[:, :, 0]
    for frame in range(10):
        assert np.array_equal(windows[frame], padded[4 * frame : 4 * frame + 10])


def test_frames_past_the_end_hear_silence():
    """Upstream drops the tail of the recording; here the last frames see zeros after it."""
    windows = frame_windows(np.ones((8, 1), np.float32), 5, 10, 4)
    assert windows.shape == (5, 10, 1)
    assert windows[1, :8].all() and not windows[4].any()


def test_every_chunk_goes_through_the_encoder_once():
    calls = []

    def encoder(mel):
        calls.append(mel.shape)
        return np.full((1, 50, 2, 3), len(calls), np.float32)

    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 5 // 2).astype(np.float32)  # 2.5 s in chunks of 1 s
    states = whisper_states(encoder, samples, 50)
    assert calls == [(1, 80, 100)] * 3
    assert states.shape == (124, 2, 3)  # 62 whole ticks of 40 ms, two states each
    assert [int(states[i, 0, 0]) for i in (0, 49, 50, 99, 100, 123)] == [1, 1, 2, 2, 3, 3]


def test_batches_of_one_size_leave_no_trace():
    rows, shapes = np.arange(10, dtype=np.float32)[:, None], []

    def double(batch):
        shapes.append(batch.shape)
        return 2 * batch

    assert np.array_equal(in_batches(double, 4, rows), 2 * rows)
    assert shapes == [(4, 1)] * 3


def test_tokens_use_all_layers_and_buckets_the_last():
    states = np.random.default_rng(0).standard_normal((40, 3, 2)).astype(np.float32)
    token_config = AdapterConfig(10, 3, 2, 4, 5, 32)
    heard, silence = audio_tokens(lambda x: x.reshape(len(x), -1), states, 10, token_config)
    assert heard.shape == (10, 60) and silence.shape == (1, 60) and not silence.any()
    bucket_config = AdapterConfig(50, 1, 2, 4, 1, 2, 7)
    embedding = np.ones(7, np.float32)

    def adapter(windows, clip):
        assert windows.shape[1:] == (50, 1, 2) and clip.shape[1:] == (7,)
        return windows[:, 24, 0, :]  # the frame's own first state

    buckets = motion_buckets(adapter, states, embedding, 10, bucket_config)
    assert np.allclose(buckets, 16 * states[::4, -1] + 16, atol=1e-5)
