"""`sonic-ms live`: a face that speaks while you speak, in the browser or over a WebSocket."""

from __future__ import annotations

from sonic_ms.errors import EngineError, UsageError
from sonic_ms.files.shipped import DEMO_IMAGE
from sonic_ms.options import add_flags, from_flags
from sonic_ms.pipeline import DEFAULT_MODEL, MODELS, load_model, model_of
from sonic_ms.runtime.choose import ENGINES


def live_arguments(parser):
    add = parser.add_argument
    add("--image", default=str(DEMO_IMAGE), help="the portrait: any still image (default: the package's)")
    add("--host", default="127.0.0.1", help="address to listen on; browsers give a microphone to https or localhost "
        "only (default: 127.0.0.1)")  # fmt: skip
    add("--port", type=int, default=8020, help="(default: 8020)")
    add("--sessions", type=int, default=3, help="most at once; more are refused (default: 3)")
    add("--look-ahead", type=float, default=0.2, metavar="SECONDS",
        help="that the mouth sees ahead, and by which the sound is late, 0 to 1 (default: 0.2)")  # fmt: skip
    add("--model", help=f"folder of a {DEFAULT_MODEL} (default: the package's)")
    add("--bundle", help="folder that `sonic-ms export` wrote, instead of a model")
    add("--engine", default="auto", help=f"{', '.join(ENGINES)}; all but mindspore need --bundle (default: auto)")
    add_flags(parser.add_argument_group("options of the video"), {DEFAULT_MODEL: MODELS[DEFAULT_MODEL].Options})


def live(args):
    try:
        import uvicorn

        from sonic_ms.live.rtc import Call  # noqa: F401
        from sonic_ms.live.server import MOST_MESSAGE, create_app
    except ImportError as error:
        raise EngineError(f"sonic-ms live needs more packages ({error}); pip install 'sonic_ms[live]'") from error
    if args.sessions < 1:
        raise UsageError(f"sessions is {args.sessions}; expected 1 or more")
    if not 0 <= args.port <= 65535:
        raise UsageError(f"port is {args.port}; expected 0 to 65535")
    options = from_flags(args, {DEFAULT_MODEL: MODELS[DEFAULT_MODEL].Options})
    name = args.model or DEFAULT_MODEL
    model_of(name, args.bundle)
    model = load_model(name, args.engine, args.bundle)

    def open_session(microphone):
        return model.live(args.image, look_ahead=args.look_ahead, microphone=microphone, **options)

    open_session(False).close()  # a wrong photo is found now, and the graphs are compiled
    print(f"http://{args.host}:{args.port}/", flush=True)
    config = uvicorn.Config(
        create_app(open_session, args.sessions),
        args.host,
        args.port,
        log_level="warning",
        ws_max_size=MOST_MESSAGE,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run()
    return {"sessions": args.sessions}
