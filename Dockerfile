# sonic_ms with onnxruntime on a CPU, linux/amd64 and linux/arm64. No MindSpore inside: graphs come with the package,
# or in a bundle. Two images of one file, the command line and the service:
#
#   docker build -t sonic-ms .                      (for a box from a PC: docker buildx build --platform linux/arm64 ...)
#   docker run --rm -v "$PWD:/files" sonic-ms generate --bundle edge_bundle --image portrait.jpg --audio speech.wav \
#       --output talk.mp4
#   docker build --target serve -t sonic-ms-serve .
#
# For an NPU take an image with CANN and Python 3.11 for the BASE, and a bundle for --engine acl.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS base

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
    pydantic==2.14.4 \
    pyyaml==6.0.3 \
    safetensors==0.8.0 \
    soxr==1.1.0 \
    tqdm==4.70.1

COPY LICENSE NOTICE README.md pyproject.toml setup.py /src/
COPY configs /src/configs
COPY convert /src/convert
COPY sonic_ms /src/sonic_ms
# --no-deps leaves MindSpore out; the two face models are fetched now, so that running needs no network
RUN pip install --no-deps /src \
    && rm -rf /src \
    && SONIC_MS_CACHE=/opt/assets python -c "from sonic_ms.files.assets import fetch_face_nets; fetch_face_nets()" \
    && chmod -R a+rX /opt/assets

USER 1000
ENTRYPOINT ["sonic-ms"]

# The service. Runs with a read-only root: it writes into /data, and into /tmp, which has to be a tmpfs then.
FROM base AS serve
USER 0
RUN pip install \
    boto3==1.44.8 \
    fastapi==0.165.0 \
    limits==5.8.0 \
    opentelemetry-exporter-otlp-proto-http==1.45.2 \
    opentelemetry-sdk==1.45.2 \
    prometheus-client==0.26.0 \
    "psycopg[binary]==3.3.9" \
    python-multipart==0.0.34 \
    "ray[client,default]==2.60.0" \
    uvicorn==0.54.0 \
    websockets==17.4 \
    && mkdir /data \
    && chown 1000:1000 /data
USER 1000
ENV HOME=/tmp
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["serve", "--host", "0.0.0.0", "--data", "/data"]

# The command line; the last one is what `docker build` makes when it is not told which.
FROM base AS cli
WORKDIR /files
CMD ["--help"]
