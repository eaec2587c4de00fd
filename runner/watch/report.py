"""The report of a job: one HTML file that needs nothing else, neither network nor server."""

from __future__ import annotations

import html
import json
import re
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING

from runner.records import JobRecords
from runner.watch.history import History
from runner.watch.report_data import report_data

if TYPE_CHECKING:
    from infra.prices import PriceTable
    from runner.connection import Connection
    from runner.records import JobRecord
    from runner.watch.job_cost import JobCost


def job_report(connection: Connection, job_id: str, prices: PriceTable | None = None) -> str:
    """The report of a job as it is now, as HTML.

    Args:
        job_id: its id, or the beginning of it.
        prices: for what its pods cost, where the database has the definition of its cluster.

    Raises:
        BadInput: no such job, or several.
    """
    records = JobRecords(connection.store)
    record = records.get(job_id)
    kept = records.history(record.job_id)
    history = History.from_bytes(kept) if kept else None
    cost = _cost(connection, record, history, prices) if history and prices else None
    data = report_data(record, history, cost)
    return page(f"{record.table}.{', '.join(record.columns)}: {record.state}", data)


def _cost(connection: Connection, record: JobRecord, history: History, prices: PriceTable) -> JobCost | None:
    from infra.spec import KubeRayClusterSpec
    from runner.errors import RunnerError
    from runner.watch.job_cost import job_cost

    spec = None
    with suppress(RunnerError):  # a cluster that is not defined, or not any more
        spec = connection.get_cluster(record.cluster) if record.cluster else None
    return job_cost(history, spec, prices) if isinstance(spec, KubeRayClusterSpec) else None


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
