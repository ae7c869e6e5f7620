"""Errors as HTTP answers: application/problem+json (RFC 9457), with the member `error` that OpenAI's clients read."""

import http
import json

from sonic_ms.errors import SonicError, code_of, http_status

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}  # OpenAI's words for a status


class Problem(Exception):
    """An answer other than success. code: one word for programs. param: the field that is wrong. more: members that
    the body gets besides."""

    def __init__(self, status, code, detail, param=None, headers=None, **more):
        super().__init__(detail)
        self.status, self.code, self.detail, self.param, self.more = status, code, detail, param, more
        self.headers = headers or {}


class Unavailable(Problem):
    """What the service stands on cannot be reached: its "database" or its "files". Nothing was lost; it may be tried
    again."""

    def __init__(self, what, detail):
        super().__init__(503, f"{what}_unavailable", f"{detail}; try again", headers={"Retry-After": "2"})


def not_found(what, name):
    """Nothing of this tenant has this name; another's job looks the same."""
    return Problem(404, "not_found", f"{what} {name[:80]!r} is not known; check the id, it may have been deleted")


def of_error(error):
    """The Problem of a SonicError, and of any other error one that tells nothing."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, SonicError):
        return Problem(http_status(error), code_of(error), " ".join(str(error).split()))
    return Problem(500, "internal_error", "something went wrong on our side; the service's log says more")


def body(problem, instance=None):
    """The members of the answer; also what a failed job's `error` is made of."""
    title = http.HTTPStatus(problem.status).phrase
    kind = KINDS.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    return {
        "type": f"urn:sonic-ms:problem:{problem.code}",
        "title": title,
        "status": problem.status,
        "detail": problem.detail,
        **({"instance": instance} if instance else {}),
        "code": problem.code,
        "param": problem.param,
        **problem.more,
        "error": {"message": problem.detail, "type": kind, "param": problem.param, "code": problem.code},
    }


def answer(problem, instance=None):
    """The Response of a Problem."""
    from starlette.responses import Response  # only here: keys are made without the extra

    headers = dict(problem.headers)
    if problem.status in (429, 503):
        headers.setdefault("Retry-After", "5")
    text = json.dumps(body(problem, instance), ensure_ascii=False)
    return Response(text, problem.status, headers, "application/problem+json")
