"""The report of a job: one HTML file that needs nothing else, neither network nor server."""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from typing import TYPE_CHECKING

from runner.records import JobRecords
from runner.watch.history import History
from runner.watch.report_data import report_data

if TYPE_CHECKING:
    from runner.store import Store


def job_report(store: Store, job_id: str) -> str:
    """The report of a job as it is now, as HTML.

    Args:
        job_id: its id, or the beginning of it.

    Raises:
        BadInput: no such job, or several.
    """
    records = JobRecords(store)
    record = records.get(job_id)
    kept = records.history(record.job_id)
    data = report_data(record, History.from_bytes(kept) if kept else None)
    return page(f"{record.table}.{', '.join(record.columns)}: {record.state}", data)


def page(title: str, data: object) -> str:
    """The file: its data stand in one JSON block, in which nothing can end the block."""
    files = resources.files(__package__) / "page"
    block = json.dumps(data, separators=(",", ":")).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    parts = {
        "title": html.escape(title),
        "css": (files / "report.css").read_text("utf-8"),
        "data": block,
        "js": (files / "report.js").read_text("utf-8"),
    }
    # All at once: what is put in may hold the marks of others.
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], (files / "report.html").read_text("utf-8"))
