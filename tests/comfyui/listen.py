"""What a ComfyUI says on its web socket, a JSON object a line; in ComfyUI's interpreter: listen.py PORT CLIENT"""

import asyncio
import sys

import aiohttp


async def listen(port, client):
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/ws?clientId={client}") as socket,
    ):
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                print(message.data.replace("\n", " "), flush=True)


asyncio.run(listen(*sys.argv[1:]))
