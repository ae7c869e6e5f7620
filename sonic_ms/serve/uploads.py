"""Files that tenants send: counted while they come in, stored under random names."""

import hashlib
import os
import secrets
import time
from dataclasses import dataclass

from sonic_ms.serve import storage
from sonic_ms.serve.files import discard, upload_key
from sonic_ms.serve.problems import Problem, not_found

KINDS = ("image", "audio")
IN_USE = "SELECT 1 FROM jobs WHERE tenant = ? AND (image = ? OR audio = ?) AND state IN ('queued', 'in_progress')"


@dataclass(frozen=True)
class Upload:
    """A row of `uploads`. name: what the sender called it; only for messages."""

    id: str
    tenant: str
    kind: str
    name: str
    bytes: int
    sha256: str
    created_at: float
    kept: int


class Counted:
    """A reader of a file that is sent: counts and digests what is read, once, and refuses what is too long."""

    def __init__(self, file, limit, param):
        self.file, self.limit, self.param = file, limit, param
        self.bytes, self.digest = 0, hashlib.sha256()
        self._first = b""

    def is_empty(self):
        self._first = self.file.read(1)
        return not self._first

    def read(self, size=-1):
        first, self._first = self._first, b""
        block = first + self.file.read(size - len(first) if size > 0 else size)
        self.bytes += len(block)
        if self.bytes > self.limit:
            raise too_large(self.param, self.limit)
        self.digest.update(block)
        return block


class Uploads:
    """The table of uploads and their files."""

    def __init__(self, settings, database, files):
        self.settings, self.database, self.files = settings, database, files

    def limit(self, kind):
        return self.settings.max_image if kind == "image" else self.settings.max_audio

    def store(self, tenant, kind, file, name, kept, param):
        """Keep the bytes of `file`; Upload. Raises Problem 413, 422 for an empty one, 507 for a full disk."""
        reader = Counted(file, self.limit(kind), param)
        upload = f"upl_{secrets.token_hex(16)}"
        key = upload_key(tenant, upload)
        shown = os.path.basename((name or kind).replace("\\", "/"))[:120]
        shown = "".join(one for one in shown if one.isprintable()) or kind
        if reader.is_empty():
            raise Problem(422, f"{kind}_error", f"{param} {shown}: the file has 0 bytes; send it again", param)
        try:
            self.files.put(key, reader)
        except OSError as error:
            raise Problem(507, "storage_full", f"{param}: cannot be stored ({error.strerror}); try later") from error
        row = Upload(upload, tenant, kind, shown, reader.bytes, reader.digest.hexdigest(), time.time(), int(kept))
        try:
            with self.database.transaction(alone=False) as connection:
                connection.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tuple(vars(row).values()))
                storage.count(connection, tenant, uploads=row.bytes)
        except BaseException:
            discard(self.files, key)
            raise
        return row

    def get(self, tenant, name):
        """Upload of a tenant, or None."""
        row = self.database.row("SELECT * FROM uploads WHERE id = ? AND tenant = ?", name, tenant)
        return Upload(**dict(row)) if row else None

    def need(self, tenant, kind, name, param):
        """The upload that a request names. Raises Problem 404, 422."""
        upload = self.get(tenant, name)
        if upload is None:
            raise not_found("upload", name)
        if upload.kind != kind:
            raise Problem(422, "usage_error", f"{param} is {name}, which was sent as {upload.kind}", param)
        return upload

    def in_use(self, tenant, name):
        """Whether a job that has not ended needs an upload."""
        return self.database.row(IN_USE, tenant, name, name) is not None

    def remove(self, tenant, name, by_force=False):
        """Forget an upload and its file; whether there was one. Problem 409 while a job needs it, unless by_force."""
        with self.database.transaction() as connection:
            if not by_force and connection.execute(IN_USE, (tenant, name, name)).fetchone():
                raise Problem(409, "in_use", f"upload {name} is used by a job that has not ended; cancel that first")
            row = connection.execute("SELECT bytes FROM uploads WHERE id = ? AND tenant = ?", (name, tenant)).fetchone()
            if row:
                connection.execute("DELETE FROM uploads WHERE id = ?", (name,))
                storage.count(connection, tenant, uploads=-row["bytes"])
        if row:
            discard(self.files, upload_key(tenant, name))
        return row is not None


def too_large(param, limit):
    return Problem(413, "too_large", f"{param}: larger than {limit >> 20} MB, which is the limit; send a smaller file",
                   param)  # fmt: skip
