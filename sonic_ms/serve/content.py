"""The bytes of a finished video: whole, in ranges, or not at all when the client has them."""

import re

from starlette.responses import FileResponse, Response, StreamingResponse

from sonic_ms.serve.files import result_key
from sonic_ms.serve.problems import Problem


def content(service, job, headers, download=False, head=False):
    """The answer with the mp4 of a job. Problem 409 while there is none, 410 when it is gone."""
    if job.state == "expired":
        raise Problem(410, "expired", f"the video of {job.id} was kept until its expires_at and is gone; make it again")
    if job.state != "completed":
        if job.ended:
            raise Problem(409, "no_video", f"{job.id} is {job.state}, there is no video; its error says why")
        raise Problem(409, "not_ready", f"{job.id} is {job.state}, its video is not there yet",
                      headers={"Retry-After": "1"})  # fmt: skip
    key = result_key(job.tenant, job.result["file"])
    try:
        size = service.files.size(key)
    except FileNotFoundError:
        service.expire(job)
        raise Problem(410, "expired", f"the file of {job.id} is gone; make it again") from None
    tag = f'"{job.result["sha256"]}"'
    kept = {"ETag": tag, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"}
    known = re.findall(r'"[^"]*"|\*', headers.get("if-none-match", ""))
    if tag in known or "*" in known:
        return Response(status_code=304, headers=kept)
    name, kind = f"{job.id}.mp4", "attachment" if download else "inline"
    if path := service.files.local(key):
        return FileResponse(path, media_type="video/mp4", headers=kept, filename=name, content_disposition_type=kind)
    kept["Content-Disposition"] = f'{kind}; filename="{name}"'
    if headers.get("if-range", tag) != tag:
        status, start, stop = 200, 0, size
    else:
        status, start, stop = _range(headers.get("range", ""), size)
    if status == 206:
        kept["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    kept["Content-Length"] = str(stop - start)
    if head:
        return Response(status_code=status, headers=kept, media_type="video/mp4")
    return StreamingResponse(service.files.read(key, start, stop), status, kept, "video/mp4")


def _range(text, size):
    """(status, start, stop) of a Range; several at once, or nonsense, are answered with the whole, as RFC 9110 allows.
    Problem 416 for one beyond the end."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", text.strip())
    if not found or found[0] == "bytes=-":
        return 200, 0, size
    first, last = found[1], found[2]
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < int(first):
        return 200, 0, size
    if start >= size:
        raise Problem(416, "range_not_satisfiable", f"the video has {size} bytes, the range begins behind them",
                      headers={"Content-Range": f"bytes */{size}"})  # fmt: skip
    return 206, start, stop
