"""The networks of sonic-base by name: which config and Cell belong to each folder the converter writes."""

from sonic_ms.models.audio_adapters import AdapterConfig, Audio2Bucket, Audio2Token
from sonic_ms.models.clip import CLIPConfig, CLIPVision
from sonic_ms.models.rife import RIFE, RIFEConfig
from sonic_ms.models.unet import SonicUNet, UNetConfig
from sonic_ms.models.vae import VAE, VAEConfig
from sonic_ms.models.whisper import WhisperConfig, WhisperEncoder
from sonic_ms.models.yoloface import YOLOFace, YOLOFaceConfig

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
