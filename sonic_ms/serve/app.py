"""The service as an ASGI application: what every request passes, and where the routes are."""

import asyncio
import contextlib
import logging
import re
import secrets
import time

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from sonic_ms import __version__
from sonic_ms.errors import SonicError
from sonic_ms.pipeline import model_of
from sonic_ms.serve import health, live_routes, page_files, sync, talks, upload_routes, videos
from sonic_ms.serve.access import foreign
from sonic_ms.serve.problems import Problem, answer, of_error
from sonic_ms.serve.service import Service

log = logging.getLogger("sonic_ms.serve")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(self), geolocation=()",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
}
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")


def create_app(settings):
    """The application. Its slots start and end with it."""
    service = Service(settings, model_of(settings.model, settings.bundle))

    @contextlib.asynccontextmanager
    async def lifespan(app):
        service.hub.loop = asyncio.get_running_loop()
        service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="sonic_ms", version=__version__, lifespan=lifespan, redoc_url=None, docs_url=None,
        description="One portrait and one recording of speech become a talking video.",
    )  # fmt: skip
    app.state.service = service
    for module in (sync, videos, talks, upload_routes, live_routes, health, page_files):
        app.include_router(module.router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(SonicError, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(Outermost, service=service)
    videos.describe(app, service.model)
    return app


def _problem(request, error):
    return answer(of_error(error), request.url.path)


def _invalid(request, error):
    first = error.errors()[0]
    param = str(first["loc"][-1])
    return answer(Problem(422, "usage_error", f"{param}: {first['msg']}", param), request.url.path)


def _http(request, error):
    words = {404: ("not_found", "there is nothing at this address"), 405: ("method_not_allowed", "not by this method")}
    code, detail = words.get(error.status_code, ("bad_request", str(error.detail)))
    return answer(Problem(error.status_code, code, detail, headers=error.headers), request.url.path)


class Outermost:
    """ASGI: a number for the request, headers of every answer, its line in the log, and 500 as a Problem."""

    def __init__(self, app, service):
        self.app, self.service = app, service

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = given.get("x-request-id", "")
        if not re.fullmatch(r"[\w.-]{1,64}", request_id):
            request_id = f"req_{secrets.token_hex(8)}"
        span, traceparent = self.service.tracing.begin(scope["path"], given)
        scope.setdefault("state", {}).update(request_id=request_id, traceparent=traceparent)
        started, status = time.perf_counter(), 0

        async def sending(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                have = {name.lower() for name, _ in message["headers"]}
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                more.append((b"x-request-id", request_id.encode()))
                message["headers"] = [*message["headers"], *[one for one in more if one[0] not in have]]
            await send(message)

        try:
            if problem := foreign(self.service.settings, given):
                await answer(problem, scope["path"])(scope, receive, sending)
            else:
                await self.app(scope, receive, sending)
        except Exception as error:
            log.exception("a request failed", extra={"request_id": request_id})
            if status:
                raise
            await answer(of_error(error), scope["path"])(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.service.tracing.end(span, method, route, status)
            self.service.answered(method, route, status, time.perf_counter() - started, request_id)
