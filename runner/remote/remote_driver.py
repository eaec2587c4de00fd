"""The driver of a backfill on a cluster: a Ray job whose entrypoint this is, or an actor that calls `drive`.

``python -m runner.remote.remote_driver DATABASE JOB``. What it is to do it reads from the database; storage options that are no
secret come in the variable `OPTIONS`, secret ones in `SECRET_OPTIONS` or as the credentials that the node has anyway.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

OPTIONS = "INFILL_STORAGE_OPTIONS"
SECRET_OPTIONS = "INFILL_STORAGE_SECRETS"
"""Set in the head's pod from a Kubernetes Secret: storage options as JSON."""
LOG_SECONDS = 5.0
LOG_CHARACTERS = 200_000
JOIN_ATTEMPTS = 3
RENEWALS = 4  # of a cluster's time to live within it


def main(database: str, job_id: str) -> int:
    """Run a job's request; the exit status of the command line."""
    from runner.environments.own_requirements import install_missing

    install_missing()
    options = {**json.loads(os.environ.get(OPTIONS, "{}")), **json.loads(os.environ.get(SECRET_OPTIONS, "{}"))}
    return drive(database, options, job_id)


def drive(database: str, storage_options: Mapping[str, str], job_id: str, variables: Mapping[str, str] | None = None) -> int:
    """Run a job's request on the Ray that this process belongs to.

    Args:
        variables: values of the client's environment for what the workers' refers to. Default: the nodes have them.
    """
    from runner import console
    from runner.connection import Connection
    from runner.errors import RunnerError
    from runner.records import JobRecords

    connection = Connection(database, storage_options=storage_options)
    records = JobRecords(connection.store.patient())
    request = records.request(job_id)
    connection.allow_pickle = request["allow_pickle"]
    os.environ.update(request.get("watch", {}))
    with kept_log(records, job_id), _cluster_kept_alive(request.get("renew")):
        try:
            _run(connection, records, job_id, {**request, "uploads": _with_values(request["uploads"], variables or {})})
        except Exception as exc:
            record_failure(records, job_id, exc)
            if not isinstance(exc, RunnerError):
                raise  # a bug, which keeps its traceback
            console.say(str(exc), job_id=job_id)
            return 1
    return 0


def record_failure(records: Any, job_id: str, exc: BaseException, status: str = "FAILED") -> None:
    """Of a job that ended before it could tell by itself."""
    from runner.records import now

    record = records.read(job_id)
    if record is not None and not record.is_ended:
        record.status, record.ended_at = status, now()
        record.error, record.error_type = str(exc) or type(exc).__name__, type(exc).__name__
        records.save(record)


def _check_python(client: str) -> None:
    """Refuse to load functions that another Python pickled; its bytecode is of that Python alone. And a Python without Ray."""
    from runner.errors import BadInput
    from runner.packages.package import this_python

    if importlib.util.find_spec("ray") is None:
        raise BadInput(
            f"`python` is {sys.executable} on the head of the cluster, and Ray is not installed in it: Ray was started there from "
            "another environment; start it with the bin folder of that one first on PATH"
        )
    if this_python() != client:
        raise BadInput(
            f"the driver on the cluster runs Python {this_python()} and its client {client}; take an image of Python {client} "
            "(python_version of the cluster), or a client of the cluster's"
        )


def _with_values(uploads: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """`uploads` with what the client gave values for: it goes to workers with their start, where nobody sees it."""
    from infra.secrets_in_specs import resolved, variables

    references = uploads.get("references", {})
    known = {name: resolved(text, given) for name, text in references.items() if set(variables(text)) <= given.keys()}
    return {**uploads, "env": known, "references": {name: text for name, text in references.items() if name not in known}}


def _run(connection: Any, records: Any, job_id: str, request: Mapping[str, Any]) -> None:
    from runner import console
    from runner.environments.environment import Environment
    from runner.jobs import Job
    from runner.local_context import LocalContext
    from runner.shipping import FunctionSpec
    from runner.table import Table
    from runner.targets import Request

    _check_python(request["python"])
    specs = {name: FunctionSpec.from_json(text) for name, text in request["specs"].items()}
    wanted = Request(tuple(request["columns"]), specs=specs, adopts=request["adopts"], **request["options"])
    context = LocalContext("local", environment=Environment(request["runtime_env"]), uploads=request["uploads"])
    join(context)
    try:
        job = Job(Table(connection, request["table"]), wanted, context, submitted=records.read(job_id))
        with console.following(", ".join(wanted.columns), job):
            console.say(str(job.run_here()), job_id=job_id)
    finally:
        context.close()


def join(context: Any) -> None:
    """Join the Ray that started this process. It is there; a busy one does not answer at once."""
    from runner.errors import RunnerError

    for _ in range(JOIN_ATTEMPTS - 1):
        with contextlib.suppress(RunnerError):
            context.open()
            return
    context.open()


@contextlib.contextmanager
def _cluster_kept_alive(renew: Mapping[str, Any] | None) -> Iterator[None]:
    """Renew an on-demand cluster's time to live while the block runs: its client may be gone."""
    if renew is None:
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        from runner.provision.deadline import ClusterEnded, renew_from_pod

        while True:
            with contextlib.suppress(OSError, ClusterEnded):
                renew_from_pod(renew["cluster"], renew["seconds"])
            if ended.wait(renew["seconds"] / RENEWALS):
                return

    threading.Thread(target=beat, name="runner-renewal", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


class _Tee(io.TextIOBase):
    """Standard error that also remembers its end."""

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner
        self.text = ""

    def write(self, text: str) -> int:
        self.text = (self.text + text)[-LOG_CHARACTERS:]
        return self._inner.write(text)

    def flush(self) -> None:
        self._inner.flush()


@contextlib.contextmanager
def kept_log(records: Any, job_id: str) -> Iterator[None]:
    """Keep what is said in the database too, for those who cannot reach the cluster, or not any more."""
    from runner.errors import RunnerError

    tee, ended = _Tee(sys.stderr), threading.Event()
    saved = ""

    def save() -> None:
        nonlocal saved
        if tee.text != saved:
            with contextlib.suppress(RunnerError):
                records.save_log(job_id, tee.text)
                saved = tee.text

    def beat() -> None:
        while not ended.wait(LOG_SECONDS):
            save()

    thread = threading.Thread(target=beat, name="runner-log", daemon=True)
    thread.start()
    with contextlib.redirect_stderr(tee):
        try:
            yield
        finally:
            ended.set()
            thread.join()
            save()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
