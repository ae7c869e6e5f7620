"""What a route needs of a request: the service, and who asks."""

import re
from typing import Annotated

from fastapi import Depends, Request

from sonic_ms.serve.problems import Problem
from sonic_ms.serve.service import Service
from sonic_ms.serve.tenants import Caller

LOCAL_HOSTS = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.I)


def foreign(settings, headers):
    """The Problem of a request that comes from elsewhere, or None. Without keys only this machine's own pages may ask:
    a page of another site, or a name that was made to lead here, is refused."""
    if not settings.local:
        return None
    host, origin = headers.get("host", ""), headers.get("origin")
    if not LOCAL_HOSTS.fullmatch(host):
        return Problem(421, "wrong_host", f"host {host[:80]!r} is not this machine; without keys only it is served")
    if origin and origin.split("://")[-1].lower() != host.lower():
        return Problem(403, "foreign_origin", "a page from elsewhere asks; without keys only our own page may")
    return None


def _service(request: Request):
    return request.app.state.service


def needs(scope):
    """Dependency: the Caller, who may do `scope`. Problem 401, 403."""

    def caller(request: Request) -> Caller:
        service = request.app.state.service
        if service.settings.local:
            found = service.local_caller
        else:
            found = service.tenants.caller(request.headers.get("authorization"))
        service.rate(found)
        if scope not in found.scopes:
            raise Problem(403, "missing_scope", f"the key may not {scope}; it may {', '.join(found.scopes)}")
        return found

    return Depends(caller)


TheService = Annotated[Service, Depends(_service)]
Reader = Annotated[Caller, needs("read")]
Creator = Annotated[Caller, needs("create")]
Deleter = Annotated[Caller, needs("delete")]
Auditor = Annotated[Caller, needs("audit")]
Watcher = Annotated[Caller, needs("metrics")]
