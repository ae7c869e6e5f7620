"""/v1/videos/sync: one request, one video. A client that goes away cancels it."""

import asyncio
import contextlib

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from sonic_ms.serve import create
from sonic_ms.serve.access import Creator, TheService
from sonic_ms.serve.content import content
from sonic_ms.serve.problems import Problem, Unavailable

router = APIRouter(tags=["videos"])
LOOK = 1.0  # seconds between two looks at whether the client is still there


@router.post("/v1/videos/sync", summary="Make a video and wait for it")
async def make(request: Request, service: TheService, caller: Creator):
    job, _ = await create.from_request(request, service, caller)
    tenant, name = caller.tenant, job.id
    with service.hub.watching(name) as changed:
        while not job.ended:
            if service.draining.is_set():
                raise Problem(503, "draining", f"the server ends; {name} goes on after its restart", video_id=name)
            try:
                await asyncio.wait_for(changed.wait(), LOOK)
            except asyncio.TimeoutError:
                if await request.is_disconnected():
                    with contextlib.suppress(Unavailable):
                        await run_in_threadpool(service.jobs.cancel, tenant, name)
            changed.clear()
            try:
                job = await run_in_threadpool(service.jobs.get, tenant, name)
            except Unavailable:  # the job goes on, and so does who waits for it
                continue
            if job is None:
                raise Problem(410, "deleted", f"{name} was deleted while it was made")
    if job.state != "completed":
        error = job.error
        raise Problem(error["status"], error["code"], error["message"], video_id=name)
    answer = await run_in_threadpool(content, service, job, {})
    answer.headers["X-Video-Id"] = name
    return answer
