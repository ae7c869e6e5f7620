"""The process of one live session: `python -m sonic_ms.serve.live_worker ORDER`, started by live_sessions.py alone.

It serves one connection of live/server.py at a unix socket and ends with it. On stdout it says one line of JSON:
{"is": "ready"} or {"is": "broken", "code", "message", "status"}.
"""

import asyncio
import json
import sys

from sonic_ms.serve.confine import confine
from sonic_ms.serve.worker import Lines, fault


def main():
    order = json.loads(sys.argv[1])
    lines = Lines()
    from sonic_ms.files.assets import fetch_face_nets

    fetch_face_nets()  # while there is a network
    confine(order, network=order["way"] == "call")  # WebRTC sends by UDP
    try:
        from sonic_ms.live.server import MOST_MESSAGE, create_app
        from sonic_ms.pipeline import load_model

        model = load_model(order["model"], order["engine"], order["bundle"], order["precision"])

        def open_session(microphone):
            return model.live(order["image"], order["look_ahead"], microphone=microphone, **order["options"])

        open_session(False).close()  # a photo that will not do is told now
    except Exception as error:
        lines.say("broken", **fault(error, {order["image"]: order["name"]}))
        return
    asyncio.run(serve(create_app(open_session, 1, order["producer"]), order["socket"], MOST_MESSAGE, lines))


async def serve(app, socket, most_message, lines):
    """Serve an app at a unix socket, and say when it is."""
    import uvicorn

    config = uvicorn.Config(app, uds=socket, log_level="warning", ws_max_size=most_message, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    lines.say("ready")
    await serving


if __name__ == "__main__":
    main()
