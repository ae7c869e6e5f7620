"""/v1/uploads: files that several jobs use."""

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse

from sonic_ms.serve import forms
from sonic_ms.serve.access import Creator, Deleter, Reader, TheService
from sonic_ms.serve.problems import Problem, not_found
from sonic_ms.serve.uploads import KINDS

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


def shown(upload):
    return {"id": upload.id, "object": "upload", "kind": upload.kind, "filename": upload.name, "bytes": upload.bytes,
            "sha256": upload.sha256, "created_at": int(upload.created_at)}  # fmt: skip


@router.post("", status_code=201, summary="Keep a portrait or a recording")
async def send(request: Request, service: TheService, caller: Creator):
    async with forms.read_form(
        request, max(service.settings.max_image, service.settings.max_audio) + forms.SPARE
    ) as fields:
        kind, file = fields.get("kind"), fields.get("file")
        if kind not in KINDS:
            raise Problem(422, "usage_error", f"kind is {str(kind)[:80]!r}; expected image or audio", "kind")
        if not isinstance(file, UploadFile):
            raise Problem(422, "input_missing_error", "file is missing; send it as multipart/form-data", "file")
        upload = await run_in_threadpool(service.store_upload, caller, kind, file)
    return JSONResponse(shown(upload), 201, {"Location": f"/v1/uploads/{upload.id}"})


@router.get("/{name}", summary="One upload")
def one(name: str, service: TheService, caller: Reader):
    upload = service.uploads.get(caller.tenant, name)
    if upload is None:
        raise not_found("upload", name)
    return shown(upload)


@router.get("/{name}/faces", summary="Where the faces of a portrait are, largest first: x, y, width, height")
def faces(name: str, service: TheService, caller: Reader):
    return service.faces(service.uploads.need(caller.tenant, "image", name, "upload"))


@router.delete("/{name}", summary="Delete an upload")
def delete(name: str, service: TheService, caller: Deleter):
    if not service.uploads.remove(caller.tenant, name):
        raise not_found("upload", name)
    return {"id": name, "object": "upload.deleted", "deleted": True}
