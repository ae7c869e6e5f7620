"""`sonic-ms serve`."""

import ipaddress
import os
from pathlib import Path

from sonic_ms.errors import EngineError, UsageError

DEFAULT_DATA = "~/.local/share/sonic_ms/serve"


def serve_arguments(parser):
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at; another than this machine's needs keys (default: 127.0.0.1)",
    )
    add("--port", type=int, default=8000, help="port to listen at (default: 8000)")
    add("--data", default=DEFAULT_DATA, help=f"folder of the queue and all files (default: {DEFAULT_DATA})")
    add("--slots", type=int, default=1, help="worker processes, each with its own model (default: 1)")
    add("--model", help="as for generate")
    add("--bundle", help="as for generate")
    add("--engine", default="auto", help="as for generate")
    add("--precision", choices=("fp32", "fp16"), default="fp32", help="as for generate")


def serve(args):
    try:
        import uvicorn

        from sonic_ms.serve.app import create_app
    except ImportError as error:
        raise EngineError(f"the service needs {error.name}; pip install 'sonic_ms[serve]'") from error
    from sonic_ms.pipeline import DEFAULT_MODEL
    from sonic_ms.serve.settings import Settings

    settings = Settings(
        data=Path(args.data).expanduser(), model=args.model or DEFAULT_MODEL, bundle=args.bundle, engine=args.engine,
        precision=args.precision, slots=args.slots,
    )  # fmt: skip
    if not _loopback(args.host):
        raise UsageError(f"--host {args.host}: keys are needed there")
    app = create_app(settings)
    config = uvicorn.Config(app, host=args.host, port=args.port, log_level="warning", access_log=False,
                            timeout_graceful_shutdown=5, server_header=False)  # fmt: skip
    print(f"serving {app.state.service.model} at http://{args.host}:{args.port}", flush=True)
    uvicorn.Server(config).run()
    return {"pid": os.getpid()}


def _loopback(host):
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
