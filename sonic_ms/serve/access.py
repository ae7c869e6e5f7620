"""What a route needs of a request: the service, and who asks."""

from typing import Annotated

from fastapi import Depends, Request

from sonic_ms.serve.problems import Problem
from sonic_ms.serve.service import Service
from sonic_ms.serve.tenants import Caller


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
