"""Clips of a video as records: pictures cropped to the training resolution, sound, mask, buckets, and, with the
networks of a converted sonic-base, what they make of these."""

import cv2
import numpy as np

from sonic_ms.base.encode import whisper_states
from sonic_ms.base.prepare import clip_tensor, face_mask, image_tensor
from sonic_ms.data.filters import clip_samples

JPEG_QUALITY = 95
LATENT_STEP = 2  # latents are kept at 12.5 frames a second, the rate the UNet makes


class Encoders:
    """The VAE, CLIP and Whisper of a converted sonic-base folder."""

    def __init__(self, folder):
        from sonic_ms.base.networks import open_folder

        self.networks = open_folder(folder)

    def latents(self, frame):
        """(4, h / 8, w / 8) float32, unscaled, of a frame (h, w, 3)."""
        return self.networks.run("vae_encoder", image_tensor(frame))[0]

    def embedding(self, frame):
        """(d,) float32."""
        return self.networks.run("clip", clip_tensor(frame, self.networks.configs["clip"].image_size))[0]

    def states(self, samples):
        """(n, layers + 1, c) float32, 50 a second."""
        positions = self.networks.configs["whisper"].max_source_positions
        return whisper_states(lambda mel: self.networks.run("whisper", mel), samples, positions)


class Record:
    """One clip while its frames come in; `finish` gives the dict that shards.py stores."""

    def __init__(self, name, clip, resolution, encoders=None):
        self.name, self.clip, self.resolution, self.encoders = name, clip, resolution, encoders
        self.jpegs, self.latents, self.portrait = [], [], None
        # the reference picture is any frame of the clip, as in training the face of a video is not always at rest
        self.reference = int(np.random.default_rng(list(name.encode())).integers(clip.last - clip.first))

    def add(self, rgb):
        """Take the next frame, in source pixels."""
        x1, y1, x2, y2 = self.clip.crop
        side = (self.resolution, self.resolution)
        mode = cv2.INTER_AREA if x2 - x1 > self.resolution else cv2.INTER_CUBIC
        picture = cv2.resize(np.ascontiguousarray(rgb[y1:y2, x1:x2]), side, interpolation=mode)
        number = len(self.jpegs)
        flags = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111)
        self.jpegs.append(cv2.imencode(".jpg", picture[:, :, ::-1], flags)[1].tobytes())
        if number == self.reference:
            self.portrait = picture
        if self.encoders and number % LATENT_STEP == 0:
            self.latents.append(self.encoders.latents(picture))

    def finish(self, samples):
        """The record; samples: 16 kHz sound of the whole video."""
        clip, encoders = self.clip, self.encoders
        sound = clip_samples(samples, clip.first, clip.last)
        scale = self.resolution / (clip.crop[2] - clip.crop[0])
        box = (np.array(clip.box) - np.tile(clip.crop[:2], 2)) * scale
        record = {
            "id": self.name,
            "jpegs": self.jpegs,
            "audio": np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16),
            "mask": face_mask(box, self.resolution, self.resolution),
            "buckets": np.float32([clip.figures["translation"], clip.figures["expression"]]),
            "box": [round(float(value), 1) for value in box],
            "reference": self.reference,
        }
        if encoders:
            record |= {
                "latents": np.stack(self.latents).astype(np.float16),
                "image_latents": encoders.latents(self.portrait).astype(np.float16),
                "clip_embedding": encoders.embedding(self.portrait).astype(np.float16),
                "whisper_states": encoders.states(sound).astype(np.float16),
            }
        return record
