"""The bytes of a finished video: whole, in ranges, or not at all when the client has them."""

import re

from starlette.responses import FileResponse, Response

from sonic_ms.serve.problems import Problem


def content(service, job, headers, download=False):
    """The answer with the mp4 of a job. Problem 409 while there is none, 410 when it is gone."""
    if job.state == "expired":
        raise Problem(410, "expired", f"the video of {job.id} was kept until its expires_at and is gone; make it again")
    if job.state != "completed":
        if job.ended:
            raise Problem(409, "no_video", f"{job.id} is {job.state}, there is no video; its error says why")
        raise Problem(409, "not_ready", f"{job.id} is {job.state}, its video is not there yet",
                      headers={"Retry-After": "1"})  # fmt: skip
    path = service.folders.result(job.tenant, job.result["file"])
    if not path.is_file():
        service.expire(job)
        raise Problem(410, "expired", f"the file of {job.id} is gone; make it again")
    tag = f'"{job.result["sha256"]}"'
    kept = {"ETag": tag, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"}
    known = re.findall(r'"[^"]*"|\*', headers.get("if-none-match", ""))
    if tag in known or "*" in known:
        return Response(status_code=304, headers=kept)
    kind = "attachment" if download else "inline"
    return FileResponse(path, media_type="video/mp4", headers=kept, filename=f"{job.id}.mp4",
                        content_disposition_type=kind)  # fmt: skip
