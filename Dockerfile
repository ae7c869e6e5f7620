# sonic_ms with onnxruntime on a CPU, linux/amd64 and linux/arm64. No MindSpore inside: graphs come in a bundle.
#
#   docker build -t sonic-ms .                      (for a box from a PC: docker buildx build --platform linux/arm64 ...)
#   docker run --rm -v "$PWD:/files" sonic-ms generate --bundle edge_bundle --image portrait.jpg --audio speech.wav \
#       --output talk.mp4
FROM python:3.11-slim-bookworm

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SONIC_MS_ASSETS_DIR=/opt/assets

# wheels of these versions exist for both platforms
RUN pip install \
    imageio-ffmpeg==0.6.0 \
    numpy==1.26.4 \
    onnxruntime==1.23.2 \
    opencv-python-headless==4.11.0.86 \
    pillow==12.3.0 \
    pyyaml==6.0.3 \
    safetensors==0.8.0 \
    soxr==1.1.0 \
    tqdm==4.70.1

COPY LICENSE NOTICE README.md pyproject.toml setup.py /src/
COPY convert /src/convert
COPY sonic_ms /src/sonic_ms
# --no-deps leaves MindSpore out; the two face models are fetched now, so that running needs no network
RUN pip install --no-deps /src \
    && rm -rf /src \
    && SONIC_MS_CACHE=/opt/assets python -c "from sonic_ms.face import FaceAnalyzer; FaceAnalyzer()" \
    && chmod -R a+rX /opt/assets

USER 1000
WORKDIR /files
ENTRYPOINT ["sonic-ms"]
CMD ["--help"]
