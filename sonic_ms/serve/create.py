"""From a request to a row of `jobs`: nothing of it stays when any step fails."""

import contextlib
import hashlib
import json

from anyio import to_thread
from starlette.datastructures import UploadFile

from sonic_ms.serve import forms, idempotency
from sonic_ms.serve.addresses import Refused, check_url
from sonic_ms.serve.files import BLOCK
from sonic_ms.serve.problems import Problem


async def from_request(request, service, caller, key=None):
    """(Job, whether it is new) of a request to make a video. key: its Idempotency-Key."""
    limit = service.settings.max_image + service.settings.max_audio + forms.SPARE
    async with forms.read_form(request, limit) as fields:
        # in threads of their own: who waits for a look at his files does not keep others from reading
        return await to_thread.run_sync(from_fields, request, service, caller, key, fields, limiter=service.making)


def from_fields(request, service, caller, key, fields):
    """The same, of fields that were read already. Blocks."""
    wanted = forms.wanted(fields, service.settings, service.model)
    check_allowed(service, caller, wanted)
    if key and (before := idempotency.hold(service.database, caller.tenant, key)):
        digests = [_digest(service, caller, wanted, param) for param in forms.FILES]
        return idempotency.made_before(
            service.jobs, caller.tenant, key, before, fingerprint(wanted, digests)
        ), False  # fmt: skip
    uploads, stored = {}, []
    try:
        for param, kind in forms.FILES.items():
            given = wanted.files[param]
            if isinstance(given, UploadFile):
                one = service.store(caller, kind, given, False, param)
                stored.append(one)
            else:
                one = service.uploads.need(caller.tenant, kind, given, param)
            uploads[param] = one
        digests = [one.sha256 for one in uploads.values()]
        return service.add(caller, wanted, uploads, key, fingerprint(wanted, digests), request.state.request_id,
                           request.state.traceparent), True  # fmt: skip
    except BaseException:
        _undo(service, caller.tenant, stored, key)
        raise


def _undo(service, tenant, stored, key):
    """Remove what a request left that came to nothing; what cannot be removed now goes when its time has come. A job
    whose answer got lost on the way from the database keeps its files."""
    with contextlib.suppress(Problem):
        for one in stored:
            service.uploads.remove(tenant, one.id)
    if key:
        idempotency.release(service.database, tenant, key)


def _digest(service, caller, wanted, param):
    """sha256 of a file of a request, which is not kept."""
    given = wanted.files[param]
    if not isinstance(given, UploadFile):
        return service.uploads.need(caller.tenant, forms.FILES[param], given, param).sha256
    digest = hashlib.sha256()
    while block := given.file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def check_allowed(service, caller, wanted):
    """Problem for what this caller may not ask for."""
    settings = service.settings
    if settings.needs_consent and not wanted.consent:
        raise Problem(
            409, "needs_consent", "consent is not true; read policy_text, and send consent=true if it holds", "consent",
            consent_version=settings.consent_version, policy_text=settings.consent_text,
        )  # fmt: skip
    if wanted.webhook_url:
        try:
            check_url(wanted.webhook_url, settings.private_webhooks)
        except Refused as error:
            raise Problem(422, "usage_error", f"webhook_url: {error}", "webhook_url") from error
    if wanted.options.get("visible_label") is None and "unlabelled" not in caller.scopes:
        raise Problem(403, "missing_scope", "visible_label is none, and the key may not leave the label out",
                      "visible_label")  # fmt: skip


def fingerprint(wanted, digests):
    """What two requests have in common that want the same: options, files, and the rest."""
    parts = [wanted.options, wanted.prompt, wanted.metadata, wanted.webhook_url, wanted.consent]
    parts += digests
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
