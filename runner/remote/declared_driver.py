"""The driver of a declared backfill: a Ray job that no client submits. ``python -m runner.remote.declared_driver``.

What it is to do is in the variable `REQUEST`, as JSON; secret storage options are in variables of the head's pod.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from infra.secrets_in_specs import OPTION_VARIABLE

REQUEST = "INFILL_BACKFILL"
_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray for the entrypoint of a job (ray/_private/runtime_env/constants.py)."""


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run the request of `environ`; the exit status of the command line.

    A cancelled run ends with 0: for KubeRay it is over, neither tried again nor kept for someone to look at.
    """
    from runner.environments.own_requirements import install_missing

    install_missing()
    request = json.loads(environ[REQUEST])
    secret = {name[len(OPTION_VARIABLE) :].lower(): text for name, text in environ.items() if name.startswith(OPTION_VARIABLE)}
    submission = json.loads(environ.get(_RAY_JOB, "{}")).get("metadata", {}).get("job_submission_id")
    return drive(request, {**request["storage_options"], **secret}, submission)


def drive(request: Mapping[str, Any], storage_options: Mapping[str, str], submission_id: str | None = None) -> int:
    """Run a request on the Ray that this process belongs to.

    Args:
        request: what `runner.declared.request_of` gives.
        submission_id: of this Ray job.
    """
    from runner import console
    from runner.connection import Connection
    from runner.errors import JobCancelled, RunnerError
    from runner.records import JobRecords
    from runner.remote.remote_driver import kept_log, record_failure

    connection = Connection(request["database"], storage_options=storage_options)
    records = JobRecords(connection.store.patient())
    others = _still_running(connection, request["name"]) if request["policy"] != "Allow" else []
    if others and request["policy"] == "Forbid":
        console.say(f"left out: job {others[0]} of {request['name']} still runs")
        return 0
    for job_id in others:
        records.ask_to_cancel(job_id)
    record = _new_record(request, submission_id)
    records.save(record)
    with kept_log(records, record.job_id):
        try:
            _run(connection, request, record)
        except (JobCancelled, KeyboardInterrupt) as exc:
            record_failure(records, record.job_id, exc, "CANCELLED")
            console.say("cancelled; finished work is kept", job_id=record.job_id)
        except Exception as exc:
            record_failure(records, record.job_id, exc)
            if not isinstance(exc, RunnerError):
                raise  # a bug, or the function's module, which keeps its traceback
            console.say(str(exc), job_id=record.job_id)
            return 1
    return 0


def _still_running(connection: Any, name: str) -> list[str]:
    """Jobs of earlier runs that have not ended, and whose drivers give signs of life."""
    return [job.job_id for job in connection.jobs() if job.declared == name and job.state in ("SUBMITTED", "QUEUED", "RUNNING")]


def _new_record(request: Mapping[str, Any], submission_id: str | None) -> Any:
    from runner.records import JobRecord, new_job_id, now, user

    return JobRecord(
        job_id=new_job_id(),
        table=request["table"],
        columns=request["columns"],
        versions=[],
        functions=[request["function"]] if request["function"] else [],
        executor="cluster",
        options=request["options"],
        user=user(),
        host=socket.gethostname(),
        started_at=now(),
        status="SUBMITTED",
        cluster=request["cluster"],
        manifest=request["manifest"],
        submission_id=submission_id,
        declared=request["name"],
    )


def _run(connection: Any, request: Mapping[str, Any], record: Any) -> None:
    from runner import console
    from runner.environments.activation import activate
    from runner.environments.environment import Environment
    from runner.jobs import Job
    from runner.local_context import LocalContext
    from runner.new_columns import add_missing
    from runner.remote.remote_driver import join
    from runner.shipping import import_udf
    from runner.targets import Request

    store = connection.store
    _mark_used(store, request["uploads"])
    activate({**request["uploads"], "store": (store.uri, store.storage_options)})
    table = connection.open_table(request["table"])
    function = import_udf(request["function"]) if request["function"] else None
    options = {"columns": tuple(request["columns"]), **request["options"], "queue": True}
    wanted = Request(udf=add_missing(table, function, request["inputs"], options), **options)
    context = LocalContext("local", environment=Environment(request["runtime_env"]), uploads=request["uploads"])
    join(context)
    # Ray ends a driver by SIGTERM, and its own handler for it says nothing on record.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        job = Job(table, wanted, context, submitted=record)
        with console.following(", ".join(wanted.columns), job):
            console.say(str(job.run_here()), job_id=job.job_id)
    finally:
        context.close()


def _mark_used(store: Any, uploads: Mapping[str, Any]) -> None:
    """Of what was uploaded once for all runs of a schedule; nodes that have it would not tell."""
    from runner.packages.unpack import mark_used

    packages = [
        *uploads.get("workspace", ())[:1],
        *(package for _, package in uploads.get("modules", ())),
        *uploads.get("site", ()),
    ]
    for package in packages:
        mark_used(store, package)


if __name__ == "__main__":
    sys.exit(main())
