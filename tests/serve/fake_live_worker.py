"""Instead of sonic_ms.serve.live_worker: the same server, with a speaker that draws at once. A photo that begins with
"broken" has no face."""

import asyncio
import json
import sys
from pathlib import Path

from sonic_ms.live.server import MOST_MESSAGE, create_app
from sonic_ms.live.session import LiveSession
from sonic_ms.serve.live_worker import serve
from sonic_ms.serve.worker import Lines
from tests.support.live_speech import PlainSpeaker

order, lines = json.loads(sys.argv[1]), Lines()
if Path(order["image"]).read_bytes().startswith(b"broken"):
    lines.say("broken", code="face_error", message="no face found in me.jpg", status=422)
else:

    def open_session(microphone):
        return LiveSession(
            PlainSpeaker(), lambda square, index: square, (4, 4), "0" * 32, order["look_ahead"], microphone
        )

    asyncio.run(serve(create_app(open_session, 1, order["producer"]), order["socket"], MOST_MESSAGE, lines))
