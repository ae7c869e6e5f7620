"""sonic-base: portrait + recording -> encode -> denoise -> decode -> interpolate.

Nothing here holds the whole video: frames are decoded, interpolated and handed on a few at a time.
"""

import dataclasses
import hashlib

import numpy as np

from sonic_ms.base import networks as networks_stage
from sonic_ms.base.decode import decode_frames, to_pixels, to_unit
from sonic_ms.base.denoise import Conditions, DenoiseSettings, denoise
from sonic_ms.base.detect import YoloDetector
from sonic_ms.base.encode import audio_tokens, motion_buckets, whisper_states
from sonic_ms.base.guidance import plan, work_of
from sonic_ms.base.interpolate import interpolate
from sonic_ms.base.lipsync import in_step
from sonic_ms.base.options import BaseOptions, what_quality_sets
from sonic_ms.base.preflight import Request, preflight, weight_bytes
from sonic_ms.base.prepare import clip_tensor, image_tensor, prepare_picture, resize
from sonic_ms.base.scheduler import EulerScheduler, SchedulerConfig
from sonic_ms.base.units import NAME
from sonic_ms.base.windows import UNets
from sonic_ms.errors import UsageError, WeightsError
from sonic_ms.media import audio


class BaseGenerator:
    """sonic-base on its networks, see networks.py. unets: windows.UNets that run the windows of a step, several at
    once; None for the networks' own."""

    name = NAME
    Options = BaseOptions

    def __init__(self, networks, unets=None):
        self.networks, self.unets = networks, unets
        self.detector = YoloDetector(networks)

    @property
    def engine(self):
        return self.networks.engine

    def fps(self, options):
        return audio.FPS if options.interpolation else audio.FPS / 2

    def prepare(self, photo, face, options, progress):
        """prepare.Picture of a photo and the face chosen in it. Raises FaceError; UsageError for an overlap that this
        checkpoint's window does not allow."""
        window = self.networks.configs["unet"].num_frames
        if options.overlap >= window:
            raise UsageError(f"overlap is {options.overlap}; expected 0 to {window - 1}, one less than the window")
        x, y, width, height = face.box
        return prepare_picture(
            photo,
            (x, y, x + width, y + height),
            options.min_resolution,
            options.crop,
            options.expand_ratio,
            options.keep_resolution,
        )

    def frames(self, scene, samples, options, progress):
        """Pictures, uint8 (h, w, 3), of the square or of the whole frame: an iterable that decodes anew each time. The
        work of denoising is done when it returns. Raises UsageError, ResourceError, WeightsError."""
        ticks = audio.frame_count(len(samples))  # frames of the video at 25 a second
        # Doubling F frames gives 2F - 1; one more is generated and the surplus cut, so that no sound is lost.
        frames = ticks // 2 + 1 if options.interpolation else (ticks + 1) // 2
        self.preflight(scene, frames, options, progress)
        heard = audio.delay(samples, options.align_offset)
        clip = self.encode(scene, heard, frames)
        latents = self.denoise(clip, frames, options, progress)
        count = ticks if options.interpolation else frames
        return Decoded(self, scene, latents, count, samples, options, progress)

    def preflight(self, scene, frames, options, progress):
        """ResourceError before any work when the request cannot fit, else a note of what it will take. Not for exported
        graphs: other engines have other memory and speed."""
        networks, branch = self.networks, options.feature_cache_branch
        if options.quality != "best":
            progress.note(f"quality {options.quality}: " + what_quality_sets(options))
        if options.feature_cache > 1 and f"unet_shallow{branch}" not in networks.units:
            raise WeightsError(
                f"this bundle has no graphs for feature_cache {options.feature_cache}; "
                f"export it again with --feature-cache-branch {branch}, or take feature_cache 1"
            )
        if networks.gear is not None:
            return
        height, width = scene.image.shape[:2]
        request = Request(
            height,
            width,
            frames,
            options.inference_steps,
            options.overlap,
            3 if options.batch_branches else 1,
            options.decode_chunk_size,
            2 if networks.engine.precision == "fp16" else 4,
            work_of(plan(self.loop(options)), options.batch_branches),
            branch if options.feature_cache > 1 else None,
        )
        estimate = preflight(networks.configs, request, weight_bytes(networks.folder), timed=progress.watched)
        progress.note(str(estimate))

    def encode(self, scene, samples, frames):
        """Everything the denoising loop needs to know: Conditions."""
        networks = self.networks
        configs = networks.configs
        states = whisper_states(
            lambda mel: networks.run("whisper", mel), samples, configs["whisper"].max_source_positions
        )
        embedding = networks.run("clip", clip_tensor(scene.image, configs["clip"].image_size))[0]
        tokens, silence = audio_tokens(
            lambda *arrays: networks.run("audio2token", *arrays), states, frames, configs["audio2token"]
        )
        buckets = motion_buckets(
            lambda *arrays: networks.run("audio2bucket", *arrays), states, embedding, frames, configs["audio2bucket"]
        )
        latents = networks.run("vae_encoder", image_tensor(scene.image))[0]
        for name in ("whisper", "clip", "audio2token", "audio2bucket"):
            networks.done(name)
        inputs = (np.ascontiguousarray(values) for values in (scene.image, scene.mask, samples))
        source = hashlib.sha256(b"".join(values.tobytes() for values in inputs)).hexdigest()
        return Conditions(latents, buckets, scene.mask, embedding, tokens, silence, source)

    def denoise(self, clip, frames, options, progress):
        """Latents of all frames, unscaled, (frames, 4, h, w)."""
        networks = self.networks
        config, scaling = networks.configs["unet"], networks.configs["vae"].scaling_factor
        shape = (frames, *clip.image_latents.shape)
        noise = np.random.default_rng(options.seed).standard_normal(shape, np.float32)
        if progress.state:  # other weights make another video of the same inputs
            clip = dataclasses.replace(clip, source=f"{clip.source} {networks.digest()}")
        loop = self.loop(options)
        run = self.unets.run if self.unets else networks.run
        latents = denoise(
            lambda *arrays: run("unet", *arrays),
            lambda *arrays: networks.run("unet_context", *arrays),
            config,
            clip,
            noise,
            EulerScheduler(SchedulerConfig(), loop.steps),
            loop,
            scaling,
            lambda step, steps: progress.step("denoise", step, steps),
            progress.state,
            lambda *arrays: networks.run(f"unet_features{loop.cache_branch}", *arrays),
            lambda *arrays: networks.run(f"unet_shallow{loop.cache_branch}", *arrays),
            self.unets.count if self.unets else 1,
        )
        networks.done("unet")
        return latents / np.float32(scaling)

    def loop(self, options):
        """DenoiseSettings of the options on these networks."""
        networks = self.networks
        return DenoiseSettings(
            steps=options.inference_steps,
            window=networks.configs["unet"].num_frames,
            overlap=options.overlap,
            shift_offset=options.shift_offset,
            image_guidance=(options.image_guidance,) * 2,
            audio_guidance=(options.audio_guidance,) * 2,
            dynamic_scale=options.dynamic_scale,
            motion_scale=options.motion_scale,
            batch_branches=options.batch_branches if networks.gear is None else networks.gear.branches == 3,
            fixed_batch=networks.gear is not None and networks.gear.branches == 3,
            image_interval=options.image_guidance_interval,
            audio_interval=options.audio_guidance_interval,
            guidance_reuse=options.guidance_reuse,
            feature_cache=options.feature_cache,
            cache_branch=options.feature_cache_branch,
        )

    def decode(self, latents, options):
        """Yield the frames (3, H, W) in 0..1, interpolated if asked for."""
        networks, gear = self.networks, self.networks.gear
        chunk = min(options.decode_chunk_size, len(latents)) if gear is None else gear.chunk
        decoded = decode_frames(lambda part: networks.run("vae_decoder", part), latents, chunk, gear is not None)
        frames = map(to_unit, decoded)
        if not options.interpolation:
            return frames
        return interpolate(frames, lambda first, second: np.clip(networks.run("rife", first, second)[2], 0.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Decoded:
    """`count` pictures of a clip's latents, decoded while they are iterated."""

    generator: BaseGenerator
    scene: object
    latents: np.ndarray
    count: int
    samples: np.ndarray
    options: BaseOptions
    progress: object

    def __iter__(self):
        pictures = (
            to_pixels(frame) for _, frame in zip(range(self.count), self.generator.decode(self.latents, self.options))
        )
        if self.options.lip_sync_correction:
            pictures = in_step(pictures, self.samples, self.generator.fps(self.options), self.progress.note)
        size = self.scene.frame.shape[1::-1]
        for picture in pictures:
            whole = self.scene.box is None and picture.shape[1::-1] != size
            yield resize(picture, size) if whole else picture


def open_folder(folder, precision="fp32", engine="auto", processes=1):
    """BaseGenerator on the Cells of a converted folder, in MindSpore, the one engine that needs no bundle. processes:
    that run the windows of a denoising step, each with a UNet. Raises WeightsError, EngineError."""
    networks = networks_stage.open_folder(folder, precision)
    return BaseGenerator(networks, UNets(folder, precision, processes) if processes > 1 else None)


def open_bundle(bundle, engine):
    """BaseGenerator on an open engine with the graphs of a bundle."""
    return BaseGenerator(networks_stage.open_bundle(bundle, engine))
