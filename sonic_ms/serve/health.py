"""Is it alive, is it ready, what does it serve, what was used."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from sonic_ms import __version__
from sonic_ms.options import schema
from sonic_ms.pipeline import MODELS
from sonic_ms.serve import audit, storage
from sonic_ms.serve.access import Auditor, Creator, Deleter, Reader, TheService, Watcher
from sonic_ms.serve.janitor import erase
from sonic_ms.serve.problems import Unavailable

router = APIRouter(tags=["service"])


@router.get("/healthz", summary="Alive")
def healthz():
    return {"status": "ok", "version": __version__}


@router.get("/readyz", summary="Ready to make videos")
def readyz(service: TheService):
    if service.draining.is_set():
        return JSONResponse({"status": "draining"}, 503)
    for one in (service.database, service.files):
        try:
            one.check()
        except Unavailable as error:
            return JSONResponse({"status": error.code, "error": error.detail}, 503, error.headers)
    if service.slots.ready:
        return {"status": "ready"}
    problem = service.slots.problem
    return JSONResponse({"status": "broken" if problem else "loading", "error": problem}, 503, {"Retry-After": "1"})


@router.get("/v1/models", summary="The model that is served")
def models(service: TheService, caller: Reader):
    data = [{"id": service.model, "object": "model", "created": 0, "owned_by": "sonic_ms",
             "ready": bool(service.slots.ready)}]  # fmt: skip
    return {"object": "list", "data": data}


@router.get("/v1/usage", summary="What was used, by day")
def usage(service: TheService, caller: Reader):
    rows = service.database.rows("SELECT * FROM usage WHERE tenant = ? ORDER BY day DESC LIMIT 31", caller.tenant)
    days = [{key: row[key] for key in ("day", "jobs", "video_seconds", "work_seconds")} for row in rows]
    stored = storage.used(service.database, caller.tenant)
    return {"object": "usage", "data": days, "bytes": stored, "limits": asdict(caller.limits)}


@router.get("/v1/audit", summary="Who did what")
def audit_page(service: TheService, caller: Auditor, after: Annotated[int, Query(ge=0, lt=2**63)] = 0):
    return {"object": "list", "data": audit.page(service.database, caller.tenant, after)}


@router.get("/v1/webhook_secret", summary="What webhooks are signed with")
def webhook_secret(service: TheService, caller: Creator):
    return {"secret": service.tenants.webhook_secret(caller.tenant)}


@router.delete("/v1/data", summary="Erase everything of this tenant: jobs, videos, uploads")
def erase_all(service: TheService, caller: Deleter):
    return {"object": "data.deleted", "deleted": True, "jobs": erase(service, caller.tenant, caller.key)}


@router.get("/metrics", summary="For Prometheus")
def metrics(service: TheService, caller: Watcher):
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/options", summary="JSON schema of the options of a video")
def options(service: TheService, caller: Reader):
    return schema(MODELS[service.model].Options)
