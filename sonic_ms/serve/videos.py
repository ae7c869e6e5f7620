"""/v1/videos: make, look at, list, follow, fetch, cancel and delete."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, StreamingResponse

from sonic_ms.serve import create, events
from sonic_ms.serve.access import Creator, Deleter, Reader, TheService
from sonic_ms.serve.content import content
from sonic_ms.serve.forms import form_schema
from sonic_ms.serve.problems import Problem, not_found
from sonic_ms.serve.view import video

router = APIRouter(prefix="/v1/videos", tags=["videos"])
POLL = "1000"  # milliseconds after which OpenAI's clients ask again


def find(service, tenant, name):
    """The Job of a tenant. Problem 404, also for what is another's."""
    job = service.jobs.get(tenant, name)
    if job is None:
        raise not_found("video", name)
    return job


def shown(service, job, status=200, headers=None):
    """The answer that holds a job."""
    headers = {"openai-poll-after-ms": POLL, "Cache-Control": "no-store", **(headers or {})}
    if not job.ended:
        headers["Retry-After"] = "1"
    return JSONResponse(video(service.jobs, job), status, headers)


@router.post("", status_code=202, summary="Make a video")
async def make(request: Request, service: TheService, caller: Creator,
               idempotency_key: Annotated[str | None, Header(max_length=255)] = None):  # fmt: skip
    job, new = await create.from_request(request, service, caller, idempotency_key)
    headers = {"Location": f"/v1/videos/{job.id}"} | ({} if new else {"Idempotent-Replayed": "true"})
    return await run_in_threadpool(shown, service, job, 202, headers)


@router.get("", summary="List videos, newest first")
def listing(service: TheService, caller: Reader, limit: Annotated[int, Query(ge=1, le=100)] = 20,
            after: str | None = None, order: Literal["asc", "desc"] = "desc"):  # fmt: skip
    jobs, more = service.jobs.page(caller.tenant, limit, after, order)
    if jobs is None:
        raise not_found("video", after)
    data = [video(service.jobs, job) for job in jobs]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, "has_more": more, **ends}


@router.get("/{name}", summary="One video")
def one(name: str, service: TheService, caller: Reader):
    return shown(service, find(service, caller.tenant, name))


@router.get("/{name}/events", summary="Follow a video (server-sent events)")
def follow(name: str, service: TheService, caller: Reader,
           last_event_id: Annotated[str | None, Header()] = None):  # fmt: skip
    find(service, caller.tenant, name)
    after = int(last_event_id) if last_event_id and last_event_id.isdigit() and len(last_event_id) < 18 else 0
    chunks = events.stream(service, caller.tenant, name, after, lambda job: video(service.jobs, job))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)


@router.get("/{name}/content", summary="The mp4")
@router.head("/{name}/content", include_in_schema=False)
def fetch(name: str, request: Request, service: TheService, caller: Reader, variant: str = "video",
          download: bool = False):  # fmt: skip
    if variant != "video":
        raise Problem(422, "usage_error", f"variant is {variant[:80]!r}; there is only video", "variant")
    return content(service, find(service, caller.tenant, name), request.headers, download,
                   request.method == "HEAD")  # fmt: skip


@router.post("/{name}/cancel", summary="End a job")
def cancel(name: str, service: TheService, caller: Deleter):
    job = find(service, caller.tenant, name)
    if job.ended and job.state != "canceled":
        raise Problem(409, "already_ended", f"video {name} is {job.state}; only what waits or runs can be cancelled")
    canceled = service.jobs.cancel(caller.tenant, name)
    return shown(service, canceled, 200 if canceled.ended else 202)


@router.delete("/{name}", summary="Delete a video; a job that runs is cancelled first")
def delete(name: str, service: TheService, caller: Deleter):
    find(service, caller.tenant, name)
    service.delete(caller.tenant, name, caller.key)
    return {"id": name, "object": "video.deleted", "deleted": True}


def describe(app, model):
    """Put the form, which is read by hand, into openapi.json."""
    usual = app.openapi

    def openapi():
        if app.openapi_schema is None:
            schema = usual()
            content = {"multipart/form-data": {"schema": form_schema(model)}}
            for path in ("/v1/videos", "/v1/videos/sync"):
                if path in schema["paths"]:
                    schema["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
        return app.openapi_schema

    app.openapi = openapi
