"""Log lines as JSON, one object each, with the ids of request and job."""

import json
import logging
import time

FIELDS = ("request_id", "job_id", "trace_id", "tenant", "route", "method", "status", "seconds", "event", "state")


class Lines(logging.Formatter):
    def format(self, record):
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": at, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(level="INFO"):
    """Everything that logs goes to stderr as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
