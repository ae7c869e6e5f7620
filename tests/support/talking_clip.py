"""Talking clips made by sonic-edge, with faults on request: what the filters and tests need and no one has to film."""

import numpy as np

from sonic_ms.edge.curves import JAW, OPEN
from sonic_ms.edge.generator import EdgeGenerator, open_folder
from sonic_ms.media.audio import SAMPLE_RATE, speech_envelope
from sonic_ms.media.video import VideoWriter
from sonic_ms.pipeline import TalkingModel


class Loud(EdgeGenerator):
    """sonic-edge that opens its mouth by loudness alone, which is what a filter by loudness can tell. Real mouths, and
    sonic-edge as it is, follow loudness too little for a clip of seconds."""

    def frames(self, scene, samples, options, progress):
        squares = super().frames(scene, samples, options, progress)
        envelope = speech_envelope(samples)
        squares.curves[:, OPEN], squares.curves[:, JAW] = 0.9 * envelope - 0.05, 0.5 * envelope
        return squares


def loud_model():
    shipped = open_folder()
    return TalkingModel(Loud(shipped.engine, shipped.heard))


def talking_clip(path, model, image, samples, heard=None, blur=0.0, side=256, fps=25):
    """Write an mp4 of `image` saying `samples` (16 kHz) and return its path.

    heard: what the sound track holds instead, float32 samples; an empty array for none. blur: of every frame, in
    pixels. side: of the video's short side.
    """
    import cv2

    video = model.generate(image=image, audio=samples, min_resolution=side, dynamic_scale=1.3)
    sound = samples if heard is None else heard
    with VideoWriter(path, video.size, sound if len(sound) else None, fps, overwrite=True) as writer:
        for frame in video:
            writer.write(cv2.GaussianBlur(frame, (0, 0), blur) if blur else frame)
    return path


def delayed(samples, seconds):
    """The same sound, later; as long as before."""
    shift = round(seconds * SAMPLE_RATE)
    return np.concatenate([np.zeros(shift, np.float32), samples])[: len(samples)]
