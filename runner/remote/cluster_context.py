"""Backfills whose drivers run on a cluster: this process submits, follows, and may go away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from infra.errors import InfraError
from runner import console
from runner.context import Context
from runner.environments.environment import Environment
from runner.errors import BadInput, RunnerError
from runner.exit_mode import ExitMode
from runner.layering import resolve_layers
from runner.packages.package import this_python
from runner.records import JobRecord, JobRecords, new_job_id, now, user
from runner.remote.places import Place
from runner.remote.remote_job import POLL_SECONDS, RemoteJob
from runner.store import secret_options
from runner.targets import Request
from runner.watch import settings

if TYPE_CHECKING:
    from runner.jobs import Handle
    from runner.shipping import FunctionSpec
    from runner.store import Store
    from runner.table import Table

CANCEL_SECONDS = 15.0
"""How long jobs that are cancelled may take to keep what they have."""
SECOND_CTRL_C_SECONDS = 3.0
_INTERRUPTIONS = (KeyboardInterrupt, asyncio.CancelledError)  # Ctrl-C cancels the main task of asyncio.run


class ClusterContext(Context):
    """A context on a cluster.

    Args:
        environment: what workers run in; its secrets are all references.
        manifest: its name, for the job records.
        on_exit: what becomes of the cluster, where it is on demand.
        wait_timeout: seconds that the end of the block waits for jobs; None for as long as they take.
    """

    kind = "cluster"

    def __init__(
        self,
        store: Store,
        place: Place,
        environment: Environment,
        *,
        manifest: str | None = None,
        on_exit: ExitMode = ExitMode.DELETE,
        wait_timeout: float | None = None,
    ) -> None:
        super().__init__()
        if wait_timeout is not None and not wait_timeout >= 0:
            raise BadInput(f"wait_timeout={wait_timeout!r} must be seconds, 0 or more; None waits as long as it takes")
        self._store = store
        self._place = place
        self._environment = environment
        self._manifest = manifest
        self._on_exit = on_exit
        self._wait_timeout = wait_timeout
        self._uploads: dict[str, Any] = {}
        self._where = ""
        self._is_detached = False

    def open(self) -> Self:
        """Have the cluster, and on it what workers need; both at once."""
        from runner.environments.worker_setup import uploads

        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(uploads, self._environment, self._store, self._place.python, self._place.platform)
            self._where = self._place.open()
            try:
                self._uploads = sent.result()
            except BaseException:
                self._place.close(keep=False)
                raise
        console.say(f"cluster {self._place.name}: {self._where}")
        self.is_open = True
        return self

    def job(self, table: Table, request: Request) -> Handle:
        """A backfill that runs on the cluster; its driver is not started yet."""
        job_id = new_job_id()
        dataset = table.to_lance()
        _, resolved, _ = resolve_layers(request, dataset, table.name, table.connection)
        specs = resolved.specs or {}
        self._check_gpus(specs)
        record = JobRecord(
            job_id=job_id,
            table=table.name,
            columns=list(request.columns),
            versions=[spec.version for spec in specs.values()],
            functions=[spec.path or spec.name for spec in specs.values()],
            executor=self.kind,
            options=request.options(),
            user=user(),
            host=socket.gethostname(),
            started_at=now(),
            status="SUBMITTED",
            cluster=self._place.name,
            manifest=self._manifest,
            submission_id=job_id,
            udf=resolved.brought(),
        )
        wanted = {
            "table": table.name,
            "columns": list(request.columns),
            "specs": {name: spec.to_json() for name, spec in specs.items()},
            "adopts": request.has_function,
            "options": {**request.options(), "queue": True},
            "allow_pickle": table.connection.allow_pickle,
            "runtime_env": self._environment.runtime_env,
            "uploads": {**self._uploads, "references": self._environment.secrets},
            "renew": self._place.renewal(),
            "python": this_python(),
            "watch": settings.given(),
        }
        made = _ClusterJob(self._store, self._place, record, wanted)
        self.track(made)
        return made

    def _check_gpus(self, specs: Mapping[str, FunctionSpec]) -> None:
        """Refuse what no worker of the cluster could ever have; Ray would wait for it without end."""
        most = self._place.most_gpus
        for column, spec in specs.items():
            if most is not None and spec.num_gpus > most:
                raise BadInput(
                    f"num_gpus={spec.num_gpus:g} of {spec.name} for column {column!r}: no worker of cluster "
                    f"{self._place.name!r} has more than {most}; lower num_gpus, or give the cluster a worker group with "
                    f"gpus: {math.ceil(spec.num_gpus)}"
                )

    def track(self, job: Handle) -> None:
        """Keep every job, ended ones too: how they ended decides what becomes of the cluster."""
        if job not in self._jobs:
            self._jobs.append(job)

    def detach(self) -> None:
        """End it without waiting: the jobs go on. The cluster stays for them; its time to live ends it after them."""
        self.is_open = False
        self._is_detached = True
        self._let_go("its jobs go on")

    def close(self, failure: BaseException | None = None) -> None:
        """Wait for the jobs and let go of the cluster, as the exit mode says."""
        if self._is_detached:
            return
        self.is_open = False
        if isinstance(failure, _INTERRUPTIONS):
            self._interrupted()
            return
        try:
            reason = self._wait() if self._on_exit is not ExitMode.RETAIN else None
        except _INTERRUPTIONS:
            self._interrupted()
            raise
        self._leave(reason or (f"the block raised {type(failure).__name__}" if failure else None))

    def _wait(self) -> str | None:
        """Wait for the jobs; why the cluster may have to stay."""
        end = float("inf") if self._wait_timeout is None else time.monotonic() + self._wait_timeout
        reason = None
        for job in self._jobs:
            try:
                if not self._wait_for(job, end):
                    return f"job {job.job_id} was not done within wait_timeout ({self._wait_timeout:g} s)"
                job.result()
            except Exception as exc:
                console.say(f"job {job.job_id} failed: {exc}")
                reason = reason or f"job {job.job_id} failed"
        return reason

    def _wait_for(self, job: Handle, end: float) -> bool:
        """Whether a job ends in time."""
        while not job.done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self._stopped.wait(min(POLL_SECONDS, left)):
                raise asyncio.CancelledError
        return True

    def _leave(self, problem: str | None) -> None:
        """Delete the cluster or keep it, and say so."""
        kept = {
            ExitMode.DELETE: None,
            ExitMode.RETAIN_ON_FAILURE: problem,
            ExitMode.RETAIN: "on_exit is RETAIN",
        }[self._on_exit]
        if self._on_exit is ExitMode.DELETE and self._place.is_on_demand:
            self._cancel_what_runs()
        self._let_go(kept)

    def _let_go(self, kept: str | None) -> None:
        try:
            deleted = self._place.close(keep=kept is not None)
        except InfraError as exc:
            raise RunnerError(
                f"cluster {self._place.name} may still be there: {exc}; `{self._place.removal()}` removes it"
            ) from exc
        if deleted:
            console.say(f"cluster {self._place.name} is deleted")
        elif kept and self._place.is_on_demand:
            console.say(f"cluster {self._place.name} is kept ({kept}), at {self._where}; `{self._place.removal()}` removes it")

    def _interrupted(self) -> None:
        """After Ctrl-C jobs and cluster stay; after a second one the jobs are cancelled and the exit mode counts."""
        try:
            for job in self._running():
                console.say(f"job {job.job_id} goes on; `python -m runner jobs attach {self._store.uri} {job.job_id}` follows it")
            if threading.current_thread() is threading.main_thread():  # no other one gets a Ctrl-C
                console.say(f"Ctrl-C again within {SECOND_CTRL_C_SECONDS:g} s cancels the jobs")
                time.sleep(SECOND_CTRL_C_SECONDS)
        except KeyboardInterrupt:
            self._cancel_what_runs()
            self._leave("the jobs were cancelled")
            return
        self._let_go("interrupted")

    def _running(self) -> list[Handle]:
        return [job for job in self._jobs if not job.done()]

    def _cancel_what_runs(self) -> None:
        running = self._running()
        for job in running:
            console.say(f"cancelling job {job.job_id}; finished work is kept")
            job.cancel()
        end = time.monotonic() + CANCEL_SECONDS
        for job in running:
            with contextlib.suppress(Exception):  # TimeoutError: its cluster goes, and it with it
                job.result(max(0.0, end - time.monotonic()))


class _ClusterJob(RemoteJob):
    """A job that is submitted by `start`."""

    def __init__(self, store: Store, place: Place, record: JobRecord, request: dict[str, Any]) -> None:
        super().__init__(store, record.job_id, self._look_at_driver, is_certain=True)
        self._is_submitted = False
        self._place, self._record, self._request = place, record, request

    def start(self) -> Self:
        """Put it on record and start its driver."""
        records = JobRecords(self._store)
        records.save_request(self.job_id, json.loads(json.dumps(self._request)))
        records.save(self._record)
        secret = secret_options(self._store)
        shown = {name: value for name, value in self._store.storage_options.items() if name not in secret}
        try:
            self._place.submit(self.job_id, self._store.uri, shown)
        except BaseException as exc:
            self._record.status, self._record.ended_at = "FAILED", now()
            self._record.error, self._record.error_type = f"it could not be submitted: {exc}", type(exc).__name__
            with contextlib.suppress(RunnerError):
                records.save(self._record)
            raise
        self._is_submitted = True
        return self

    def run_here(self) -> Any:
        self.start()
        return self.result()

    def _look_at_driver(self) -> str | None:
        """A cluster knows nothing of a driver that is just being submitted."""
        return self._place.look(self.job_id) if self._is_submitted else None
