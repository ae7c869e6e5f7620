"""`sonic-ms serve`, `sonic-ms keys` and `sonic-ms batch`."""

import importlib.util
import ipaddress
import sys
from pathlib import Path

from sonic_ms.errors import EngineError, UsageError

DEFAULT_DATA = "~/.local/share/sonic_ms/serve"
MB = 1 << 20


def serve_arguments(parser):
    from sonic_ms.labels.commands import operator_flags

    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at; beyond this machine keys are needed (default: 127.0.0.1)",
    )
    add("--port", type=int, default=8000, help="port to listen at (default: 8000)")
    _data(parser)
    add("--files", metavar="WHERE",
        help="folder or s3://BUCKET/PREFIX of photos, recordings and videos (default: --data)")  # fmt: skip
    _workers(parser)
    add("--workers", choices=("processes", "ray"), default="processes",
        help="processes of this machine, or actors of a Ray cluster (default: processes)")  # fmt: skip
    add("--ray-address", default="auto", metavar="HOST:PORT",
        help="head of the Ray cluster that this machine belongs to (default: auto)")  # fmt: skip
    add("--soc", metavar="CHIP",
        help="with --workers ray: chip of which each worker gets one, by the label soc of Ray's nodes (default: what "
        "--bundle was built for)")  # fmt: skip
    add("--live-sessions", type=int, default=1, metavar="N",
        help="faces that speak at once, a process each; see docs/live.md (default: 1, 0: none)")  # fmt: skip
    add("--visible-label", choices=("en", "zh"), default="en",
        help="language of the label in the picture of requests that do not say (default: en)")  # fmt: skip
    add("--consent", metavar="FILE", help="text that each request has to agree to with consent=true")
    add("--max-audio-seconds", type=float, default=600.0, help="longer recordings are refused (default: 600)")
    add("--max-storage", type=int, default=20_000, help="MB of all files, more are refused (default: 20000)")
    add("--keep-days", type=float, default=7.0, help="days that videos are kept (default: 7)")
    add("--keep-inputs-hours", type=float, default=24.0, help="hours that photos and recordings are kept (default: 24)")
    add("--worker-memory", type=int, help="MB of address space of a worker (default: no limit)")
    add("--clamav", metavar="SOCKET",
        help="unix socket of clamd, which sees each upload before it is kept; no answer, no upload")  # fmt: skip
    add("--private-webhooks", action="store_true", help="deliver webhooks to private addresses too, and by plain http")
    operator_flags(parser)


def _workers(parser):
    from sonic_ms.runtime.choose import ENGINES

    add = parser.add_argument
    add("--slots", type=int, default=1, help="worker processes, each with its own model (default: 1)")
    add("--lanes", type=int, default=2, help="videos that a worker makes at once, taking turns (default: 2)")
    add("--model", help="as for generate")
    add("--bundle", help="as for generate")
    add("--engine", default="auto", choices=ENGINES, help="as for generate")
    add("--precision", choices=("fp32", "fp16"), default="fp32", help="as for generate")


def batch_arguments(parser):
    from sonic_ms.labels.commands import operator_flags
    from sonic_ms.pipeline import DEFAULT_MODEL

    add = parser.add_argument
    add("jobs", help="list of videos, .csv with a heading or .jsonl: image, audio, output and any option of generate")
    add("--out", default=".", help="folder of the videos (default: here)")
    add("--overwrite", action="store_true", help="make videos anew that are there already")
    _workers(parser)
    parser.set_defaults(model=DEFAULT_MODEL)
    operator_flags(parser)


def batch(args):
    from sonic_ms.labels.commands import operator_of
    from sonic_ms.serve.batch import run
    from sonic_ms.serve.settings import Settings

    operator_of(args)
    _at_least(args, slots=1, lanes=1)
    settings = Settings(
        data=Path(args.out), model=args.model, bundle=args.bundle, engine=args.engine, precision=args.precision,
        slots=args.slots, lanes=args.lanes, producer=args.producer, c2pa_cert=args.c2pa_cert, c2pa_key=args.c2pa_key,
    )  # fmt: skip
    return run(args, settings)


def _at_least(args, **least):
    for name, value in least.items():
        if getattr(args, name) < value:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least {value}")


def _data(parser):
    add = parser.add_argument
    add("--data", default=DEFAULT_DATA, help=f"folder of the queue and all files (default: {DEFAULT_DATA})")
    add("--database", metavar="URL", help="postgresql://USER:PASSWORD@HOST/NAME of a queue that servers share "
        "(default: a file in --data)")  # fmt: skip


def settings_of(args, local):
    """Settings of the flags of `serve`. Raises UsageError."""
    from sonic_ms.labels.commands import operator_of
    from sonic_ms.pipeline import DEFAULT_MODEL
    from sonic_ms.serve.settings import Settings

    operator_of(args)  # a wrong producer, certificate or key is told now
    _at_least(args, slots=1, lanes=1, live_sessions=0, max_storage=1, keep_days=0, keep_inputs_hours=0)
    if not args.max_audio_seconds > 0:
        raise UsageError(f"--max-audio-seconds is {args.max_audio_seconds}; expected a positive number")
    return Settings(
        data=Path(args.data).expanduser(), database=args.database, files=args.files,
        model=args.model or DEFAULT_MODEL, bundle=args.bundle, engine=args.engine, precision=args.precision,
        workers=args.workers, ray_address=args.ray_address, soc=_chip(args), slots=args.slots, lanes=args.lanes,
        live_sessions=args.live_sessions, local=local, producer=args.producer,
        c2pa_cert=args.c2pa_cert, c2pa_key=args.c2pa_key, visible_label=args.visible_label,
        needs_consent=args.consent is not None, max_audio_seconds=args.max_audio_seconds,
        max_storage=args.max_storage * MB, keep_results=args.keep_days * 86400,
        keep_inputs=args.keep_inputs_hours * 3600,
        worker_memory=args.worker_memory and args.worker_memory * MB, private_webhooks=args.private_webhooks,
        clamav=args.clamav and Path(args.clamav),
        **_consent(args.consent),
    )  # fmt: skip


def _chip(args):
    """The chip that a worker in a Ray cluster needs, or None."""
    if args.workers != "ray":
        if args.soc is not None:
            raise UsageError(f"--soc {args.soc} is for --workers ray; leave it out")
        return None
    from sonic_ms.serve.actors import chip_of

    return args.soc or chip_of(args.bundle)


def _consent(path):
    """The text of a consent, with a version that changes with it."""
    import hashlib

    from sonic_ms.files.reading import read_small

    if path is None:
        return {}
    text = read_small(path, "a text of consent", error=UsageError).decode("utf-8", "replace").strip()
    return {"consent_text": text, "consent_version": hashlib.sha256(text.encode()).hexdigest()[:12]}


def serve(args):
    _require("fastapi", "uvicorn", "python_multipart", "prometheus_client", "limits", "websockets")
    from sonic_ms.serve.database import open_database
    from sonic_ms.serve.files import Folders
    from sonic_ms.serve.tenants import Tenants

    settings = settings_of(args, local=True)
    database = open_database(settings.database, Folders(settings.data).data)
    keys = Tenants(database).any_key()
    database.close()
    if not keys and not is_loopback(args.host):
        raise UsageError(
            f"--host {args.host} is not this machine alone, and there are no keys; make one with sonic-ms keys add "
            f"TENANT --data {args.data}"
        )
    if args.workers == "ray":
        from sonic_ms.serve.actors import connect

        connect(args.ray_address)
    from sonic_ms.serve.run import run

    run(settings_of(args, local=not keys), args.host, args.port)


def is_loopback(host):
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require(*modules):
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise EngineError(f"the service needs {name}; pip install 'sonic_ms[serve]'")


def keys_arguments(parser):
    from sonic_ms.serve.tenants import SCOPES, USUAL

    parser.add_argument("action", choices=("add", "list", "revoke"), help="what to do")
    parser.add_argument(
        "name", nargs="?", help="add: the tenant, small letters, digits and dashes; revoke: id of the key"
    )
    parser.add_argument("--scopes", default=",".join(USUAL),
                        help=f"what the key may do, of {', '.join(SCOPES)} (default: {','.join(USUAL)})")  # fmt: skip
    parser.add_argument("--days", type=float, help="days that the key is good for (default: for ever)")
    parser.add_argument("--limit", action="append", default=[], metavar="NAME=NUMBER",
                        help="limit of the tenant: queued, video_seconds_a_day, bytes, requests_a_minute")  # fmt: skip
    _data(parser)


def keys(args):
    from sonic_ms.serve import audit
    from sonic_ms.serve.database import open_database
    from sonic_ms.serve.files import Folders
    from sonic_ms.serve.tenants import Tenants

    database = open_database(args.database, Folders(Path(args.data).expanduser()).data)
    tenants = Tenants(database)
    if args.action == "list":
        for row in tenants.list_keys():
            state = "revoked" if row["revoked_at"] else "good"
            print(f"{row['id']}  {row['tenant']}  {row['scopes']}  {state}")
        return {"keys": tenants.list_keys()}
    if not args.name:
        raise UsageError(f"keys {args.action}: give {'the tenant' if args.action == 'add' else 'the id of the key'}")
    if args.action == "add":
        key = tenants.add_key(args.name, tuple(args.scopes.split(",")), args.days, _limits(args.limit))
        print(key)
        print("this key is shown once; send it as Authorization: Bearer KEY", file=sys.stderr)
        found = tenants.caller(f"Bearer {key}")
        with database.transaction() as connection:
            audit.append(connection, args.name, "command line", "key.added", found.key, scopes=args.scopes)
        return {"id": found.key, "tenant": args.name}
    if not tenants.revoke(args.name):
        raise UsageError(f"key {args.name!r} is not known or revoked already; see sonic-ms keys list")
    with database.transaction() as connection:
        row = connection.execute("SELECT tenant FROM keys WHERE id = ?", (args.name,)).fetchone()
        audit.append(connection, row["tenant"], "command line", "key.revoked", args.name)
    return {"id": args.name}


def _limits(texts):
    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            limits[name] = int(value)
        except ValueError:
            raise UsageError(f"--limit {text!r}; expected NAME=NUMBER, such as queued=20") from None
    return limits
