"""The networks of sonic-base by name: which config and Cell belong to each folder the converter writes."""

from sonic_ms.models.audio_adapters import Audio2Bucket, Audio2Token
from sonic_ms.models.clip import CLIPVision
from sonic_ms.models.configs import (
    AdapterConfig,
    CLIPConfig,
    RIFEConfig,
    UNetConfig,
    VAEConfig,
    WhisperConfig,
    YOLOFaceConfig,
)
from sonic_ms.models.rife import RIFE
from sonic_ms.models.unet import SonicUNet
from sonic_ms.models.vae import VAE
from sonic_ms.models.whisper import WhisperEncoder
from sonic_ms.models.yoloface import YOLOFace

# name -> (config dataclass, Cell). RIFE is built for one (height, width), given after the config.
NETWORKS = {
    "unet": (UNetConfig, SonicUNet),
    "vae": (VAEConfig, VAE),
    "clip": (CLIPConfig, CLIPVision),
    "whisper": (WhisperConfig, WhisperEncoder),
    "audio2token": (AdapterConfig, Audio2Token),
    "audio2bucket": (AdapterConfig, Audio2Bucket),
    "rife": (RIFEConfig, RIFE),
    "yoloface": (YOLOFaceConfig, YOLOFace),
}
