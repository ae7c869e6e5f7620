"""A video now and then while sonic-base trains: one portrait and one recording through the networks as they are."""

from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import FaceError, OutputError
from sonic_ms.files.config import require
from sonic_ms.train.base.diffusion import GENERATED_FPS


@dataclass(frozen=True)
class ValidationConfig:
    """portrait, speech: files. duration: seconds of the speech. The rest as for `sonic-ms generate`.

    How often: `validate_every` of the loop. The weights are those of that step, not their moving average.
    """

    portrait: str
    speech: str
    duration: float = 2.0
    min_resolution: int = 512
    inference_steps: int = 25
    image_guidance: float = 2.0
    audio_guidance: float = 7.5
    seed: int = 0
    face_box: tuple[float, float, float, float] | None = None  # x, y, w, h in photo pixels; skips the detector

    def __post_init__(self):
        checks = (
            ("duration", self.duration >= 1 / GENERATED_FPS, "at least one frame of 0.08 seconds"),
            ("min_resolution", 64 <= self.min_resolution <= 2048, "64 to 2048 pixels"),
            ("inference_steps", 1 <= self.inference_steps <= 1000, "1 to 1000"),
            ("seed", self.seed >= 0, "0 or more"),
        )
        require(self, checks, "validation: ")


class Validation:
    """`validate` of the trainer: writes FOLDER/validation/NUMBER.mp4; returns the figures of `sonic-ms evaluate`.

    Nothing here draws from the generators of the training, and no weight is changed: with and without it, the losses
    are the same. The frozen networks are loaded for each video and freed after it.
    """

    def __init__(self, config, networks, folder):
        """networks: base.Networks in training. Unreadable files and photos without a face fail here already."""
        from sonic_ms.base.detect import YoloDetector
        from sonic_ms.base.networks import open_folder
        from sonic_ms.face.choose import choose_face
        from sonic_ms.media.audio import load_audio
        from sonic_ms.media.image import load_image

        self.config, self.networks, self.folder = config, networks, Path(folder) / "validation"
        self.portrait = load_image(config.portrait)
        self.samples = load_audio(config.speech, duration=config.duration)
        detector = YoloDetector(open_folder(networks.folder, keep=False))
        self.face_box = choose_face(self.portrait, detector, face_box=config.face_box)[0].box

    def __call__(self, step):
        from sonic_ms.base.generator import BaseGenerator
        from sonic_ms.base.networks import open_folder
        from sonic_ms.evaluate import evaluate
        from sonic_ms.labels.save import save_video
        from sonic_ms.pipeline import TalkingModel

        config = self.config
        networks = open_folder(self.networks.folder, keep=False, trained=self.networks.cells)
        model = TalkingModel(BaseGenerator(networks))
        video = model.generate(
            self.portrait,
            self.samples,
            min_resolution=config.min_resolution,
            inference_steps=config.inference_steps,
            image_guidance=config.image_guidance,
            audio_guidance=config.audio_guidance,
            seed=config.seed,
            face_box=self.face_box,
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write in {self.folder}: {error.strerror}") from error
        path = save_video(video, self.folder / f"{step:08d}.mp4", overwrite=True, progress=False)
        try:
            figures = evaluate(path, self.samples, self.portrait)
        except FaceError:  # an untrained network draws none
            return {"val_faces": 0.0}
        values = {name: one["value"] for name, one in figures.items()}
        return {f"val_{name}": float(value) for name, value in values.items() if value is not None}
