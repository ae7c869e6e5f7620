"""A server that speaks S3, on a free port of this machine, which can be told to refuse."""

import io
import threading

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class _Silent(WSGIRequestHandler):
    def log_request(self, *_):
        pass


class S3Server:
    """refusing: None, or (status, code) of every answer, as `503, "SlowDown"`. refuses: which requests, a function of
    (method, path). requests: [(method, path)] of those that were answered."""

    def __init__(self):
        self.refusing, self.refuses, self.requests = None, lambda method, path: True, []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Silent)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="test",
                                   aws_secret_access_key="test")  # fmt: skip

    def _answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if self.refusing and self.refuses(method, path):
            status, code = self.refusing
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            start_response(f"{status} {code}", [("Content-Type", "text/xml"), ("Content-Length", str(len(text)))])
            return io.BytesIO(text)
        self.requests.append((method, path))
        return self._app(environ, start_response)

    def create(self, bucket):
        """The address of a new bucket for `--files`."""
        self.client.create_bucket(Bucket=bucket)
        return f"s3://{bucket}/videos?endpoint={self.url}"

    def keys(self, bucket):
        return [one["Key"] for one in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
