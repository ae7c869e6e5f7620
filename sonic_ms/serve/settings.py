"""How one server was set up; commands.py fills this in."""

from dataclasses import dataclass
from pathlib import Path

from sonic_ms.labels.aigc import DEFAULT_PRODUCER
from sonic_ms.pipeline import DEFAULT_MODEL

LOCAL = "local"  # the tenant of a server on loopback without keys


@dataclass(frozen=True)
class Settings:
    """data: folder of what is this server's alone, and of all else that has no other place. local: no keys, one tenant.
    Sizes in bytes, times in seconds."""

    data: Path
    database: str | None = None  # postgresql://...; else a file in data
    files: str | None = None  # a folder or s3://...; else data
    model: str = DEFAULT_MODEL
    bundle: str | None = None
    engine: str = "auto"
    precision: str = "fp32"
    delta: str | None = None  # file of a person, as for generate
    workers: str = "processes"  # of this machine, or "ray": actors of a cluster
    ray_address: str = "auto"
    soc: str | None = None  # chip that a worker needs, by the label of Ray's nodes
    slots: int = 1
    lanes: int = 2  # jobs that a slot's worker makes at once: one decodes and encodes while another's graphs run
    live_sessions: int = 1  # faces that speak at once, a process each, besides the slots
    local: bool = True
    producer: str = DEFAULT_PRODUCER
    c2pa_cert: str | None = None  # files that sign a manifest
    c2pa_key: str | None = None
    visible_label: str = "en"  # of requests that do not say
    needs_consent: bool = False
    consent_version: str = "1"
    consent_text: str = "The person in the portrait and the owner of the voice agree to this video."
    worker_memory: int | None = None
    max_image: int = 32 << 20
    max_audio: int = 256 << 20
    max_audio_seconds: float = 600.0
    max_storage: int = 20 << 30  # of all results and uploads; more are refused
    keep_results: float = 7 * 86400.0
    keep_inputs: float = 86400.0
    clamav: Path | None = None  # socket of a clamd that sees every upload first
    private_webhooks: bool = False  # deliver to private addresses too, and by plain http: for closed networks
    webhook_pauses: tuple[float, ...] = (5, 300, 1800, 7200, 18000, 36000)  # before each further attempt

    def __post_init__(self):
        object.__setattr__(self, "data", Path(self.data))
