"""A job as clients see it: OpenAI's video object, and what it lacks."""

from sonic_ms.serve.problems import Problem, body

STATUS = {"queued": "queued", "in_progress": "in_progress", "completed": "completed"}  # all else failed: OpenAI's four


def video(jobs, job, shown_id=None):
    """The object of a job. shown_id: another id to show."""
    result, total = job.result, job.frames_total
    options = job.options
    error = _error(job)
    progress = 100 if job.state == "completed" else _progress(job)
    return {
        "id": shown_id or job.id,
        "object": "video",
        "model": job.model,
        "status": STATUS.get(job.state, "failed"),
        "state": job.state,
        "progress": progress,
        "stage": job.stage,
        "frames_done": job.frames_done,
        "frames_total": total,
        "queue_position": jobs.position(job),
        "eta_seconds": jobs.eta(job),
        "attempt": job.attempt,
        "created_at": int(job.created_at),
        "started_at": _whole(job.started_at),
        "completed_at": _whole(job.completed_at),
        "expires_at": _whole(job.expires_at),
        "seconds": _seconds(result, job),
        "size": f"{result['width']}x{result['height']}" if result else None,
        "width": result.get("width"),
        "height": result.get("height"),
        "fps": result.get("fps"),
        "bytes": result.get("bytes"),
        "sha256": result.get("sha256"),
        "labels": _labels(result, options),
        "notes": result.get("notes", []),
        "options": options,
        "prompt": job.extra.get("prompt", ""),
        "remixed_from_video_id": None,
        "metadata": job.extra.get("metadata", {}),
        "webhook": jobs.webhook(job),
        "error": error,
    }


def _error(job):
    if job.state == "expired":
        return _members(Problem(410, "expired", "the video was kept until expires_at and is gone; make it again"))
    if not job.error:
        return None
    return _members(Problem(job.error["status"], job.error["code"], job.error["message"]))


def _members(problem):
    return body(problem)["error"] | {"status": problem.status}


def _progress(job):
    return int(99 * job.frames_done / job.frames_total) if job.frames_total and job.state == "in_progress" else 0


def _seconds(result, job):
    if result:
        return f"{result['frames'] / result['fps']:g}"
    return f"{job.options['duration']:g}" if job.options.get("duration") else None


def _labels(result, options):
    if not result:
        return None
    visible = options.get("visible_label")
    return {"visible": visible, "aigc": result["number"], "watermark": result["watermark"],
            "c2pa": result.get("c2pa", False)}  # fmt: skip


def _whole(seconds):
    return None if seconds is None else int(seconds)
