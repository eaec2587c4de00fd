"""What is kept of every job beside the data: ``_runner/jobs/<id>.json`` and, of some, more beside it.

``<id>.errors.json``: rows that failed. ``<id>.request.json``: what a driver on a cluster is to do. ``<id>.cancel``: somebody asks
it to stop. ``<id>.log``: what the driver said. ``<id>.tasks.arrow``: what each task did; see `runner.watch.history`.
"""

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
ENDED = ("DONE", "FAILED", "CANCELLED")
LOST_SECONDS = 60.0


@dataclass
class JobRecord:
    """One backfill.

    Attributes:
        status: ``SUBMITTED`` (to a cluster), ``QUEUED`` (behind another job of the column), ``RUNNING``, ``DONE``, ``FAILED`` or
            ``CANCELLED``.
        versions: function version of each column.
        options: what `Table.backfill` was given, apart from its defaults.
        udf: spec of each column's function, as JSON, where ``udf=`` was given; empty where the columns' own ran.
        plan: figures of the first `BackfillPlan`.
        seconds: that each phase has taken so far.
        result: figures of `BackfillResult`, once ended.
        error: message of the failure, and `error_type` its class.
        cluster: where it runs, and `manifest` what workers run in; by name.
        phase: of a running job, as `runner.backfill.driver.Meter` has it.
        updated_at: when its driver last gave sign of life.
        submission_id: of the Ray job that its driver is.
        declared: name of the backfill that declares it in git; None of one that a client started.
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
    error_type: str | None = None
    cluster: str | None = None
    manifest: str | None = None
    phase: str = ""
    workers: int = 0
    rows_failed: int = 0
    rows_resumed: int = 0
    updated_at: str | None = None
    submission_id: str | None = None
    declared: str | None = None
    udf: dict[str, str] = field(default_factory=dict)
    plan: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED

    @property
    def state(self) -> str:
        """The status; ``LOST`` of a job whose driver has been silent for long."""
        return "LOST" if not self.is_ended and self.silent_seconds() > LOST_SECONDS else self.status

    def silent_seconds(self) -> float:
        """Since the driver's last sign of life."""
        last = dt.datetime.fromisoformat(self.updated_at or self.started_at)
        return (dt.datetime.now(dt.UTC) - last).total_seconds()


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
        self._store.put(_path(record.job_id, ".json"), json.dumps(dataclasses.asdict(record), indent=1).encode())

    def get(self, job_id: str) -> JobRecord:
        """One job by its id, or by the beginning of it.

        Raises:
            BadInput: no such job, or several.
        """
        found = [known for known in self.ids() if known.startswith(job_id)] if job_id else []
        if len(found) != 1:
            problem = "no job" if not found else f"{len(found)} jobs"
            raise BadInput(f"{problem} {job_id!r} in {self._store.uri}; `python -m runner jobs list {self._store.uri}` lists them")
        record = self.read(found[0])
        assert record is not None
        return record

    def read(self, job_id: str) -> JobRecord | None:
        """A job by its whole id."""
        data = self._store.get(_path(job_id, ".json"))
        return JobRecord(**json.loads(data)) if data else None

    def ids(self) -> list[str]:
        """Ids of all jobs, oldest first."""
        names = (path.removeprefix(f"{FOLDER}/") for path, _ in self._store.objects(FOLDER))
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json") and name.count(".") == 1)

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

    def remove(self, job_id: str) -> None:
        """Forget a job, with its log and its errors."""
        self._store.delete([path for path, _ in self._store.objects(FOLDER) if path.startswith(f"{FOLDER}/{job_id}.")])

    def save_request(self, job_id: str, request: dict[str, Any]) -> None:
        """What the driver of a job is to do."""
        self._store.put(_path(job_id, ".request.json"), json.dumps(request).encode())

    def request(self, job_id: str) -> dict[str, Any]:
        """What `save_request` kept.

        Raises:
            BadInput: nothing; the job ran in its client.
        """
        data = self._store.get(_path(job_id, ".request.json"))
        if data is None:
            raise BadInput(f"job {job_id} of {self._store.uri} has no request: it ran in the process that asked for it")
        return dict(json.loads(data))

    def ask_to_cancel(self, job_id: str) -> None:
        """Ask the driver of a job to stop; it looks every few seconds."""
        self._store.put(_path(job_id, ".cancel"), now().encode())

    def is_cancel_asked(self, job_id: str) -> bool:
        return self._store.get(_path(job_id, ".cancel")) is not None

    def save_log(self, job_id: str, text: str) -> None:
        self._store.put(_path(job_id, ".log"), text.encode())

    def log(self, job_id: str) -> str:
        """What the driver of a job said; empty where it ran in its client."""
        return (self._store.get(_path(job_id, ".log")) or b"").decode()

    def save_history(self, job_id: str, data: bytes) -> None:
        self._store.put(_path(job_id, ".tasks.arrow"), data)

    def history(self, job_id: str) -> bytes | None:
        """What `runner.watch.history.History` was kept as; None of a job that ended within seconds of a crash."""
        return self._store.get(_path(job_id, ".tasks.arrow"))

    def save_errors(self, job_id: str, errors: Sequence[RowError]) -> None:
        if errors:
            self._store.put(_path(job_id, ".errors.json"), json.dumps([error.to_dict() for error in errors]).encode())

    def errors(self, job_id: str) -> list[RowError]:
        """Rows that failed in a job."""
        data = self._store.get(_path(job_id, ".errors.json"))
        return [RowError(**raw) for raw in json.loads(data)] if data else []


def _path(job_id: str, ending: str) -> str:
    return f"{FOLDER}/{job_id}{ending}"
