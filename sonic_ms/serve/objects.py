"""The file store in a bucket that speaks S3."""

import contextlib
import datetime
import importlib.util
import logging
import secrets
import urllib.parse
from pathlib import Path

from sonic_ms.errors import EngineError, UsageError
from sonic_ms.serve.problems import Unavailable

CONNECT, READ = 3.0, 20.0  # seconds to wait for a connection, and for the next bytes
TRIES = 2  # of a request; who can wait longer tries again itself
PART = 16 << 20  # bytes; larger files are sent in parts
MISSING = ("404", "NoSuchKey", "NoSuchBucket", "NotFound")


class S3Files:
    """Files in a bucket, with the methods of files.LocalFiles, and `read`.

    address: s3://BUCKET/PREFIX, and ?endpoint=URL where AWS_ENDPOINT_URL does not say it. Keys and region as boto3
    finds them. Raises UsageError when the bucket is not there or may not be written, EngineError without boto3 or an
    answer.
    """

    def __init__(self, address):
        self.address = address
        url = urllib.parse.urlsplit(address)
        query = urllib.parse.parse_qs(url.query)
        self.bucket, self.prefix = url.netloc, url.path.strip("/")
        if not self.bucket or set(query) - {"endpoint"}:
            raise UsageError(f"--files {address}: expected s3://BUCKET/PREFIX, perhaps with ?endpoint=URL")
        self._client = _client(query.get("endpoint", [None])[0])
        self._prove()

    def _prove(self):
        """Write and remove a small file: what a server must be able to do."""
        from botocore.exceptions import ClientError, ParamValidationError

        key = self._key(f".check-{secrets.token_hex(8)}")
        try:
            self._client.put_object(Bucket=self.bucket, Key=key, Body=b"")
            self._client.delete_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in MISSING:
                raise UsageError(
                    f"--files {self.address}: there is no such bucket; make it, or check the name"
                ) from error
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise UsageError(
                    f"--files {self.address}: may not be written ({code}); the key needs PutObject, GetObject, "
                    "DeleteObject and ListBucket"
                ) from error
            raise EngineError(f"--files {self.address}: the store answers {code}; try again") from error
        except ParamValidationError as error:
            raise UsageError(f"--files {self.address}: {self.bucket!r} cannot be the name of a bucket") from error
        except _failures() as error:
            raise EngineError(f"--files {self.address}: {_say(error)}") from error

    def _key(self, key):
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextlib.contextmanager
    def _asking(self, key=""):
        """Turns what boto3 raises into FileNotFoundError and Unavailable."""
        from botocore.exceptions import ClientError

        try:
            yield {"Bucket": self.bucket, "Key": self._key(key)}
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in MISSING and code != "NoSuchBucket":
                raise FileNotFoundError(key) from error
            raise Unavailable("files", f"the file store answers {code}") from error
        except _failures() as error:
            raise Unavailable("files", f"the file store cannot be reached ({type(error).__name__})") from error

    def put(self, key, reader):
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, use_threads=False)
        with self._asking(key) as where:
            self._client.upload_fileobj(reader, **where, Config=config)

    def take(self, key, path):
        with open(path, "rb") as file:
            self.put(key, file)

    def fetch(self, key, folder):
        path = Path(folder, key.rpartition("/")[2])
        with self._asking(key) as where, open(path, "wb") as out:
            self._client.download_fileobj(**where, Fileobj=out)
        return path

    def local(self, key):
        return None

    def read(self, key, start, stop):
        """Iterator of the bytes from `start` up to `stop`, which is one of them. FileNotFoundError before the first."""
        with self._asking(key) as where:
            body = self._client.get_object(**where, Range=f"bytes={start}-{stop - 1}")["Body"]
        return self._blocks(key, body)

    def _blocks(self, key, body):
        with contextlib.closing(body), self._asking(key):
            yield from body.iter_chunks(1 << 18)

    def size(self, key):
        with self._asking(key) as where:
            return self._client.head_object(**where)["ContentLength"]

    def remove(self, key):
        with self._asking(key) as where:
            self._client.delete_object(**where)

    def stored(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        prefix = self._key("")
        with self._asking():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                for one in page.get("Contents", ()):
                    yield one["Key"][len(prefix) :], (now - one["LastModified"]).total_seconds()

    def check(self):
        with self._asking():
            self._client.head_bucket(Bucket=self.bucket)


def _failures():
    """What is raised when there is no answer, or half of one."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    return BotoCoreError, Boto3Error, HTTPError, ConnectionError


def _say(error):
    name = type(error).__name__
    if name == "NoCredentialsError":
        return "no key for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return f"cannot be reached ({name}); check the endpoint, AWS_ENDPOINT_URL or ?endpoint=URL"


def _client(endpoint):
    if importlib.util.find_spec("boto3") is None:
        raise EngineError("--files s3://... needs boto3; pip install 'sonic_ms[cluster]'")
    import boto3
    from botocore.config import Config

    logging.getLogger("botocore").setLevel(logging.WARNING)  # else it tells where it found its keys
    config = Config(
        connect_timeout=CONNECT, read_timeout=READ, retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=32, request_checksum_calculation="when_required",  # what many stores besides Amazon's know
        response_checksum_validation="when_required",
    )  # fmt: skip
    try:
        return boto3.client("s3", endpoint_url=endpoint, config=config)
    except Exception as error:  # a wrong URL, profile or region, each its own kind
        raise UsageError(f"--files s3://...: {' '.join(str(error).split())}") from error
