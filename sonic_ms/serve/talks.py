"""D-ID's /talks, as far as a photo and a recording go: a best effort for clients that know nothing else.

Files come by POST /images and /audios; the `url` of their answers goes into source_url and audio_url. Other addresses
are not fetched, texts are not spoken, and result_url wants the same key as everything.
"""

import re
import time
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from sonic_ms.serve import create, forms
from sonic_ms.serve.access import Creator, Deleter, Reader, TheService
from sonic_ms.serve.problems import Problem, not_found

router = APIRouter(tags=["D-ID"])
SCHEME = "sonic-ms://"
STATUS = {"queued": "created", "in_progress": "started", "completed": "done"}


class Script(BaseModel):
    type: str = "audio"
    audio_url: str | None = None


class Talk(BaseModel):
    """What POST /talks takes; other members are left aside."""

    source_url: str
    script: Script
    config: dict[str, Any] = {}
    name: str | None = None
    user_data: str | None = None
    webhook: str | None = None


def _iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _upload(url, param):
    found = re.fullmatch(re.escape(SCHEME) + "(upl_[0-9a-f]{32})", url or "")
    if not found:
        raise Problem(422, "urls_not_taken", f"{param}: only the url that POST /images or /audios answered is taken",
                      param, kind="ValidationError")  # fmt: skip
    return found[1]


async def _store(request, service, caller, kind):
    async with forms.read_form(request, service.uploads.limit(kind) + forms.SPARE) as fields:
        file = fields.get(kind)
        if not isinstance(file, UploadFile):
            raise Problem(422, "input_missing_error", f"{kind} is missing; send it as a file", kind)
        upload = await run_in_threadpool(service.store_upload, caller, kind, file)
    return {"id": upload.id, "url": SCHEME + upload.id}


@router.post("/images", status_code=201, summary="Send a portrait")
async def image(request: Request, service: TheService, caller: Creator):
    return await _store(request, service, caller, "image")


@router.post("/audios", status_code=201, summary="Send a recording")
async def audio(request: Request, service: TheService, caller: Creator):
    return await _store(request, service, caller, "audio")


@router.post("/talks", status_code=201, summary="Make a video")
def make(talk: Talk, request: Request, service: TheService, caller: Creator):
    if talk.script.type != "audio":
        raise Problem(422, "usage_error", f"script.type is {talk.script.type[:80]!r}; only audio is spoken here",
                      "script.type", kind="ValidationError")  # fmt: skip
    metadata = {key: value[: forms.MAX_VALUE] for key in ("name", "user_data") if (value := getattr(talk, key))}
    fields = {
        "input_reference": _upload(talk.source_url, "source_url"),
        "audio_reference": _upload(talk.script.audio_url, "script.audio_url"),
        "metadata": metadata,
        "webhook_url": talk.webhook,
        "consent": "true" if talk.config.get("consent") is True else "",
    }
    job, _ = create.from_fields(request, service, caller, None, fields)
    return _shown(request, job)


@router.get("/talks/{name}", summary="One video")
def one(name: str, request: Request, service: TheService, caller: Reader):
    return _shown(request, _find(service, caller, name))


@router.delete("/talks/{name}", summary="Delete a video")
def delete(name: str, request: Request, service: TheService, caller: Deleter):
    job = _find(service, caller, name)
    service.delete(caller.tenant, job.id, caller.key)
    return _shown(request, job)


def _find(service, caller, name):
    job = service.jobs.get(caller.tenant, re.sub("^tlk_", "video_", name))
    if job is None or not name.startswith("tlk_"):
        raise not_found("talk", name)
    return job


def _shown(request, job):
    status = STATUS.get(job.state, "error")
    base = str(request.base_url).rstrip("/")
    talk = {"id": job.id.replace("video_", "tlk_"), "object": "talk", "status": status,
            "created_at": _iso(job.created_at), "metadata": job.extra.get("metadata", {})}  # fmt: skip
    if status == "done":
        talk["result_url"] = f"{base}/v1/videos/{job.id}/content"
    if status == "error":
        error = job.error or {"code": "expired", "message": "the video was kept for its time and is gone"}
        talk["error"] = {"kind": error["code"], "description": error["message"]}
    return talk
