"""Log lines as JSON, for collectors, with the ids of job and task: `INFILL_LOG=json` switches them on."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

TASK_LOG = "infill.task"
_labels: dict[str, Any] = {}  # of the task that this process is at: a worker has one at a time, its calls are in several threads


def line(message: str, level: str = "INFO", logger: str = "infill", **fields: Any) -> str:
    """One line."""
    time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "logger": logger, "message": message, **fields}, default=str)


class JsonFormatter(logging.Formatter):
    """Of a worker: what the functions of a backfill log, too, tells of which job and task it is."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(_labels)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return line(record.getMessage(), record.levelname, record.name, **fields)


def begin_task(labels: Mapping[str, Any]) -> None:
    """In a worker: from now on lines are of this task. Python's root logger writes JSON to standard error, from INFO on."""
    _labels.clear()
    _labels.update(labels)
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        root.handlers[:] = [handler]
        root.setLevel(logging.INFO)
    logging.getLogger(TASK_LOG).info("task began")
