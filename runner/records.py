"""What is kept of every job beside the data: ``_runner/jobs/<id>.json`` and, where rows failed, ``<id>.errors.json``."""

from __future__ import annotations

import dataclasses
import datetime as dt
import getpass
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.errors import BadInput, RowError
from runner.store import Store

FOLDER = "jobs"


@dataclass
class JobRecord:
    """One backfill.

    Attributes:
        status: ``RUNNING``, ``DONE``, ``FAILED`` or ``CANCELLED``.
        versions: function version of each column.
        options: what `Table.backfill` was given, apart from its defaults.
        result: figures of `BackfillResult`, once ended.
        error: message of the failure.
    """

    job_id: str
    table: str
    columns: list[str]
    versions: list[str]
    functions: list[str]
    executor: str
    options: dict[str, Any]
    user: str
    host: str
    started_at: str
    status: str = "RUNNING"
    read_version: int | None = None
    ended_at: str | None = None
    rows_done: int = 0
    rows_total: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def new_job_id() -> str:
    """Sorts by time, to the microsecond in the first five digits of the end: ``20260131-235959-3f9a1c2``."""
    time = dt.datetime.now(dt.UTC)
    return f"{time:%Y%m%d-%H%M%S}-{time.microsecond:05x}{secrets.token_hex(1)}"


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


class JobRecords:
    """The job records of a database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, record: JobRecord) -> None:
        self._store.put(f"{FOLDER}/{record.job_id}.json", json.dumps(dataclasses.asdict(record), indent=1).encode())

    def get(self, job_id: str) -> JobRecord:
        """One job by its id, or by the beginning of it.

        Raises:
            BadInput: no such job, or several.
        """
        found = [known for known in self.ids() if known.startswith(job_id)] if job_id else []
        if len(found) != 1:
            problem = "no job" if not found else f"{len(found)} jobs"
            raise BadInput(f"{problem} {job_id!r} in {self._store.uri}; `python -m runner jobs list {self._store.uri}` lists them")
        data = self._store.get(f"{FOLDER}/{found[0]}.json")
        assert data is not None
        return JobRecord(**json.loads(data))

    def ids(self) -> list[str]:
        """Ids of all jobs, oldest first."""
        names = (path.removeprefix(f"{FOLDER}/") for path, _ in self._store.objects(FOLDER))
        return sorted(name.removesuffix(".json") for name in names if not name.endswith(".errors.json"))

    def latest(self, table: str | None = None, limit: int = 100) -> list[JobRecord]:
        """The latest jobs, newest first; of one table where it is named."""
        found: list[JobRecord] = []
        for job_id in reversed(self.ids()):
            record = self.get(job_id)
            if table is None or record.table == table:
                found.append(record)
            if len(found) == limit:
                break
        return found

    def save_errors(self, job_id: str, errors: Sequence[RowError]) -> None:
        if errors:
            self._store.put(f"{FOLDER}/{job_id}.errors.json", json.dumps([error.to_dict() for error in errors]).encode())

    def errors(self, job_id: str) -> list[RowError]:
        """Rows that failed in a job."""
        data = self._store.get(f"{FOLDER}/{job_id}.errors.json")
        return [RowError(**raw) for raw in json.loads(data)] if data else []
