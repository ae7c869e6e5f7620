"""The networks of sonic-base by name: which config and Cell belong to each folder the converter writes."""

from sonic_ms.base.audio_adapters import Audio2Bucket, Audio2Token
from sonic_ms.base.clip import CLIPVision
from sonic_ms.base.rife import RIFE
from sonic_ms.base.unet import SonicUNet
from sonic_ms.base.units import CONFIGS
from sonic_ms.base.vae import VAE
from sonic_ms.base.whisper import WhisperEncoder
from sonic_ms.base.yoloface import YOLOFace

CELLS = {
    "unet": SonicUNet,
    "vae": VAE,
    "clip": CLIPVision,
    "whisper": WhisperEncoder,
    "audio2token": Audio2Token,
    "audio2bucket": Audio2Bucket,
    "rife": RIFE,  # is built for one (height, width), given after the config
    "yoloface": YOLOFace,
}
NETWORKS = {name: (CONFIGS[name], cell) for name, cell in CELLS.items()}  # name -> (config dataclass, Cell)
