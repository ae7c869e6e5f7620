"""sonic-base from a portrait and a recording to a video: image + audio -> encode -> denoise -> decode -> interpolate.

The networks are those that tools/pt2ms_weights.py wrote into one folder. Nothing here holds the whole video: frames
are decoded, interpolated and handed on a few at a time.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonic_ms.base.boxes import decode, detect, input_size
from sonic_ms.base.decode import decode_frames, to_pixels, to_unit
from sonic_ms.base.denoise import Clip, DenoiseSettings, denoise
from sonic_ms.base.encode import audio_tokens, motion_buckets, whisper_states
from sonic_ms.base.interpolate import interpolate
from sonic_ms.base.preflight import Request, preflight, weight_bytes
from sonic_ms.base.prepare import clip_tensor, image_tensor, prepare_portrait, resize
from sonic_ms.base.scheduler import EulerScheduler, SchedulerConfig
from sonic_ms.errors import FaceError, UsageError
from sonic_ms.files.config import from_dict, require
from sonic_ms.media import audio as audio_stage
from sonic_ms.media.image import load_image
from sonic_ms.media.video import FPS, Video


@dataclass(frozen=True)
class BaseOptions:
    """Settings of one video; names and meaning are Sonic's."""

    duration: float | None = None  # seconds; may only shorten the video
    min_resolution: int = 512  # short side the networks work at, in pixels
    keep_resolution: bool = False  # the video has the photo's size
    crop: bool = False  # use only a square around the face
    expand_ratio: float = 1.0  # size of that square: room on each side of the face box, as a share of its size
    inference_steps: int = 25
    dynamic_scale: float = 1.0  # strength of the motion
    motion_scale: float = 1.0  # strength of the head's share of it
    align_offset: float = 0.0  # seconds; positive makes the mouth later
    image_guidance: float = 2.0
    audio_guidance: float = 7.5
    overlap: int = 0  # frames two neighbouring windows share
    shift_offset: int = 7  # frames by which the windows move from step to step
    decode_chunk_size: int = 8  # frames decoded together
    interpolation: bool = True  # 25 frames a second; without it 12.5
    seed: int = 0
    face: str = "largest"  # or the index of a face, largest first
    face_box: tuple[float, float, float, float] | None = None  # x, y, w, h in photo pixels; skips the detector
    batch_branches: bool = True  # run the three guidance branches at once: faster, three times the memory
    resume: str | None = None  # file that keeps the last finished step; an interrupted run goes on from it
    max_audio_seconds: float = 3600.0

    def __post_init__(self):
        checks = (
            ("duration", self.duration is None or self.duration > 0, "a positive number of seconds"),
            ("min_resolution", 64 <= self.min_resolution <= 2048, "64 to 2048 pixels"),
            ("expand_ratio", 0 <= self.expand_ratio <= 5, "0 to 5"),
            ("inference_steps", 1 <= self.inference_steps <= 1000, "1 to 1000"),
            ("dynamic_scale", 0 <= self.dynamic_scale <= 3, "0 to 3"),
            ("motion_scale", 0 <= self.motion_scale <= 3, "0 to 3"),
            ("align_offset", -2 <= self.align_offset <= 2, "-2 to 2 seconds"),
            ("image_guidance", 0 <= self.image_guidance <= 30, "0 to 30"),
            ("audio_guidance", 0 <= self.audio_guidance <= 30, "0 to 30"),
            ("decode_chunk_size", 1 <= self.decode_chunk_size <= 64, "1 to 64"),
            ("shift_offset", 0 <= self.shift_offset <= 1000, "0 to 1000"),
            ("seed", 0 <= self.seed < 2**63, "0 to 2^63-1"),
            ("face", self.face == "largest" or str(self.face).isdigit(), "'largest' or an index such as 0"),
        )
        require(self, checks)


class BaseModel:
    """sonic-base; `generate` has the interface of the light model. networks: see base_networks.py."""

    compile_seconds = 0.0  # graphs are built while the networks run; their time is part of the work

    def __init__(self, networks):
        self.networks = networks
        self.notes = []  # of the last `generate`: what the user may want to know

    def generate(self, image, audio, sample_rate=None, progress=None, noise=None, announce=None, **options):
        """Video (a lazy stream) of the portrait `image` speaking `audio`.

        Args:
            image, audio, sample_rate: as for sonic_ms.media.image.load_image and sonic_ms.media.audio.load_audio.
            progress: function (step, steps), called before the first denoising step and after each.
            noise: standard normal (frames, 4, h, w) to start from; by default drawn from the seed.
            announce: function (preflight.Estimate), called before the work; not for exported graphs.
            options: fields of BaseOptions.
        Raises:
            UsageError, InputMissingError, ImageError, FaceError, AudioError, WeightsError: see sonic_ms.errors.
        """
        settings = from_dict(BaseOptions, options, "options")
        self.notes = []
        extra = {} if sample_rate is None else {"sample_rate": sample_rate}
        samples = audio_stage.load_audio(
            audio, max_seconds=settings.max_audio_seconds, duration=settings.duration, **extra
        )
        photo = load_image(image)
        portrait = prepare_portrait(
            photo,
            self.find_face(photo, settings),
            settings.min_resolution,
            settings.crop,
            settings.expand_ratio,
            settings.keep_resolution,
        )
        ticks = audio_stage.frame_count(len(samples))  # frames of the video at 25 a second
        # Doubling F frames gives 2F - 1; one more is generated and the surplus cut, so that no sound is lost.
        frames = ticks // 2 + 1 if settings.interpolation else (ticks + 1) // 2
        self.preflight(portrait, frames, settings, announce)
        heard = audio_stage.delay(samples, settings.align_offset)
        clip = self.encode(portrait, heard, frames)
        latents = self.denoise(clip, frames, settings, noise, progress)
        count = ticks if settings.interpolation else frames
        source = audio if isinstance(audio, (str, Path)) else None
        fps = FPS if settings.interpolation else FPS / 2

        def stream():
            for _, frame in zip(range(count), self.frames(latents, settings)):
                pixels = to_pixels(frame)
                yield pixels if portrait.size == pixels.shape[1::-1] else resize(pixels, portrait.size)

        return Video(stream, portrait.size, count, samples, source, fps)

    def preflight(self, portrait, frames, settings, announce=None):
        """ResourceError before any work when the request cannot fit, else `announce` what it will take. Not for
        exported graphs: other engines have other memory and speed."""
        networks = self.networks
        if networks.gear is not None:
            return
        height, width = portrait.image.shape[:2]
        request = Request(
            height,
            width,
            frames,
            settings.inference_steps,
            settings.overlap,
            3 if settings.batch_branches else 1,
            settings.decode_chunk_size,
        )
        configs = {name: networks.config(name) for name in ("unet", "vae")}
        estimate = preflight(configs, request, weight_bytes(networks.folder), timed=announce is not None)
        if announce:
            announce(estimate)

    def find_face(self, photo, settings):
        """Box (x1, y1, x2, y2) of the face to animate, in pixels of the photo."""
        if settings.face_box is not None:
            x, y, width, height = settings.face_box
            return x, y, x + width, y + height
        height, width = photo.shape[:2]
        size = input_size(width, height)
        small = resize(photo, size).astype(np.float32).transpose(2, 0, 1)[None] / 255.0
        maps = self.networks.run("yoloface", small)
        found = detect(decode(maps, self.networks.config("yoloface")), width / size[0], height / size[1])
        if not len(found):
            raise FaceError("no face found; give a clear frontal photo, or the place of the face as face_box")
        area = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
        order = np.argsort(-area, kind="stable")
        index = 0 if settings.face == "largest" else int(settings.face)
        if index >= len(order):
            raise FaceError(f"face {index} does not exist: {len(order)} found, counted from 0")
        if len(order) > 1 and settings.face == "largest":
            self.notes.append(f"{len(order)} faces found: the largest is animated; choose another with face=")
        return tuple(found[order[index], :4])

    def encode(self, portrait, samples, frames):
        """Everything the denoising loop needs to know: Clip."""
        networks = self.networks
        states = whisper_states(
            lambda mel: networks.run("whisper", mel), samples, networks.config("whisper").max_source_positions
        )
        side = networks.config("clip").image_size
        embedding = networks.run("clip", clip_tensor(portrait.image, side))[0]
        tokens, silence = audio_tokens(
            lambda *arrays: networks.run("audio2token", *arrays), states, frames, networks.config("audio2token")
        )
        buckets = motion_buckets(
            lambda *arrays: networks.run("audio2bucket", *arrays),
            states,
            embedding,
            frames,
            networks.config("audio2bucket"),
        )
        latents = networks.run("vae_encoder", image_tensor(portrait.image))[0]
        for name in ("whisper", "clip", "audio2token", "audio2bucket"):
            networks.done(name)
        inputs = (np.ascontiguousarray(values) for values in (portrait.image, portrait.mask, samples))
        source = hashlib.sha256(b"".join(values.tobytes() for values in inputs)).hexdigest()
        return Clip(latents, buckets, portrait.mask, embedding, tokens, silence, source)

    def denoise(self, clip, frames, settings, noise=None, progress=None):
        """Latents of all frames, unscaled, (frames, 4, h, w)."""
        networks, config = self.networks, self.networks.config("unet")
        scaling = networks.config("vae").scaling_factor
        shape = (frames, *clip.image_latents.shape)
        if noise is None:
            noise = np.random.default_rng(settings.seed).standard_normal(shape, np.float32)
        if noise.shape != shape:
            raise UsageError(f"noise has shape {noise.shape}; this clip needs {shape}")
        if settings.resume:  # other weights make another video of the same inputs
            clip = dataclasses.replace(clip, source=f"{clip.source} {networks.digest()}")
        loop = DenoiseSettings(
            steps=settings.inference_steps,
            window=config.num_frames,
            overlap=settings.overlap,
            shift_offset=settings.shift_offset,
            image_guidance=(settings.image_guidance,) * 2,
            audio_guidance=(settings.audio_guidance,) * 2,
            dynamic_scale=settings.dynamic_scale,
            motion_scale=settings.motion_scale,
            batch_branches=settings.batch_branches if networks.gear is None else networks.gear.branches == 3,
        )
        latents = denoise(
            lambda *arrays: networks.run("unet", *arrays),
            lambda *arrays: networks.run("unet_context", *arrays),
            config,
            clip,
            noise,
            EulerScheduler(SchedulerConfig(), loop.steps),
            loop,
            scaling,
            progress,
            settings.resume,
        )
        networks.done("unet")
        return latents / np.float32(scaling)

    def frames(self, latents, settings):
        """Yield the frames (3, H, W) in 0..1, interpolated if asked for."""
        networks, gear = self.networks, self.networks.gear
        chunk = min(settings.decode_chunk_size, len(latents)) if gear is None else gear.chunk
        decoded = decode_frames(lambda part: networks.run("vae_decoder", part), latents, chunk, gear is not None)
        frames = map(to_unit, decoded)
        if not settings.interpolation:
            return frames
        return interpolate(frames, lambda first, second: np.clip(networks.run("rife", first, second)[2], 0.0, 1.0))
