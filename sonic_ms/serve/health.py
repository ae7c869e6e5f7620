"""Is it alive, is it ready, what does it serve, what was used."""

from fastapi import APIRouter
from starlette.responses import JSONResponse

from sonic_ms import __version__
from sonic_ms.options import schema
from sonic_ms.pipeline import MODELS
from sonic_ms.serve.access import Reader, TheService

router = APIRouter(tags=["service"])


@router.get("/healthz", summary="Alive")
def healthz():
    return {"status": "ok", "version": __version__}


@router.get("/readyz", summary="Ready to make videos")
def readyz(service: TheService):
    if service.draining.is_set():
        return JSONResponse({"status": "draining"}, 503)
    if service.slots.ready:
        return {"status": "ready"}
    problem = service.slots.problem
    return JSONResponse({"status": "broken" if problem else "loading", "error": problem}, 503, {"Retry-After": "1"})


@router.get("/v1/models", summary="The model that is served")
def models(service: TheService, caller: Reader):
    data = [{"id": service.model, "object": "model", "created": 0, "owned_by": "sonic_ms",
             "ready": service.slots.ready}]  # fmt: skip
    return {"object": "list", "data": data}


@router.get("/v1/options", summary="JSON schema of the options of a video")
def options(service: TheService, caller: Reader):
    return schema(MODELS[service.model].Options)
