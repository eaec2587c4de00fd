"""The commands on jobs. They need the database's address alone, from whichever machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.common import AsJson, Database, StorageOptions, exit_codes, open_database
from runner.cli.contexts import OnExit, Place, Reuse, Stack, TimeToLive, WaitTimeout
from runner.cli.costs import PricesFile

if TYPE_CHECKING:
    from runner.connection import Connection
    from runner.records import JobRecord
    from runner.remote.remote_job import RemoteJob

CANCEL_SECONDS = 60.0

jobs_app = typer.Typer(help="Past and running backfills.", no_args_is_help=True, rich_markup_mode=None)

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or the beginning of it.")]


@jobs_app.command("list")
def list_jobs(
    database: Database,
    table: Annotated[str | None, typer.Option(metavar="TABLE", help="Of this table only.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the latest.")] = 20,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """List backfills, the latest first. LOST is one whose driver has been silent for a minute."""
    import dataclasses

    with exit_codes():
        records = open_database(database, storage_option).jobs(table, limit)
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(record) for record in records]))
            return
        for record in records:
            rows = f"{record.rows_done:,} of {record.rows_total:,} rows"
            where = f"  {record.cluster}" if record.cluster else ""
            where += f"  (declared: {record.declared})" if record.declared else ""
            columns = f"{record.table}.{','.join(record.columns)}"
            typer.echo(f"{record.job_id}  {record.state:<9}  {columns}  {rows}  {record.started_at}{where}")


@jobs_app.command("show")
def show_job(database: Database, job_id: JobId, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """Show all that is recorded of a backfill."""
    import dataclasses

    with exit_codes():
        record = dataclasses.asdict(open_database(database, storage_option).job(job_id))
        if as_json:
            typer.echo(json.dumps(record))
            return
        for name, value in record.items():
            if value not in (None, {}, [], ""):
                typer.echo(f"{name:<13} {value if isinstance(value, str) else json.dumps(value)}")


@jobs_app.command("attach")
def attach(database: Database, job_id: JobId, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """Follow a backfill to its end. Ctrl-C stops following, not the job."""
    from runner import console

    with exit_codes():
        connection = open_database(database, storage_option)
        record = connection.job(job_id)
        job = _handle(connection, record)
        if not job.done():
            console.say(f"job {record.job_id}: {console.describe(job.progress())}")
        try:
            with console.following(", ".join(record.columns), job):
                result = job.result()
        except KeyboardInterrupt:
            typer.echo(f"job {record.job_id} goes on", err=True)
            raise SystemExit(130) from None
        typer.echo(json.dumps(result.to_dict()) if as_json else str(result))


@jobs_app.command("report")
def report(
    database: Database,
    job_id: JobId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output. Default: ID.html.")
    ] = None,
    prices: PricesFile = None,
    storage_option: StorageOptions = None,
) -> None:
    """Write what a backfill did as one HTML file: tasks by worker, throughput, stragglers, errors, memory, phases, cost."""
    from infra.prices import find_prices
    from runner.errors import BadInput

    with exit_codes():
        connection = open_database(database, storage_option)
        record = connection.job(job_id)
        if prices is not None and record.cluster is None:
            raise BadInput(f"--prices {prices}: it prices the pods of a cluster, and job {record.job_id} ran on none")
        page = connection.job_report(record.job_id, find_prices(prices))
        file = output or Path(f"{record.job_id}.html")
        if str(file) == "-":
            typer.echo(page)
            return
        try:
            file.write_text(page, "utf-8")
        except OSError as exc:
            raise BadInput(f"--output {file}: cannot be written: {exc.strerror}; name a file in a folder that exists") from None
        typer.echo(str(file))


@jobs_app.command("logs")
def logs(database: Database, job_id: JobId, storage_option: StorageOptions = None) -> None:
    """Print what the driver of a backfill on a cluster has said, up to some seconds ago."""
    from runner.records import JobRecords

    with exit_codes():
        connection = open_database(database, storage_option)
        typer.echo(JobRecords(connection.store).log(connection.job(job_id).job_id), nl=False)


@jobs_app.command("cancel")
def cancel(database: Database, job_id: JobId, storage_option: StorageOptions = None) -> None:
    """Stop a backfill, wherever it runs. Finished work is kept; the next backfill of the column takes it up."""
    from runner.errors import JobLost, RunnerError

    with exit_codes():
        connection = open_database(database, storage_option)
        record = connection.job(job_id)
        if record.is_ended:
            typer.echo(f"job {record.job_id} has ended: {record.status}")
            return
        job = _handle(connection, record)
        job.cancel()
        try:
            job.result(CANCEL_SECONDS)
        except (JobLost, TimeoutError) as exc:
            raise RunnerError(f"job {record.job_id} was asked to stop, and has not said that it did: {exc}") from None
        except RunnerError:
            pass  # how it ended is on record
        typer.echo(f"job {record.job_id}: {connection.job(record.job_id).status}")


@jobs_app.command("resume")
def resume(
    database: Database,
    job_id: JobId,
    cluster: Annotated[str | None, typer.Option(metavar="CLUSTER", help="As of `backfill`. Default: where it ran.")] = None,
    manifest: Annotated[str | None, typer.Option(metavar="NAME", help="As of `backfill`. Default: what it ran in.")] = None,
    stack: Stack = None,
    on_exit: OnExit = "delete",
    wait_timeout: WaitTimeout = None,
    reuse: Reuse = "match",
    time_to_live: TimeToLive = None,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Run a backfill again as it was asked for; what an earlier run finished is taken over."""
    from contextlib import nullcontext

    from runner.errors import BadInput

    with exit_codes():
        connection = open_database(database, storage_option)
        record = connection.job(job_id)
        if record.state in ("RUNNING", "QUEUED", "SUBMITTED"):
            raise BadInput(f"job {record.job_id} runs; `jobs attach` follows it, `jobs cancel` stops it")
        where = cluster or ("local" if stack else _where_it_ran(connection, record))
        place = Place(where, manifest or record.manifest, stack, on_exit, wait_timeout, reuse, time_to_live)
        with nullcontext() if place.is_default else place.open(connection):
            result = connection.open_table(record.table).resume(record)
        typer.echo(json.dumps(result.to_dict()) if as_json else str(result))


def _where_it_ran(connection: Connection, record: JobRecord) -> str:
    from runner.errors import BadInput

    if record.cluster is None:
        return record.executor
    if record.cluster not in [spec.name for spec in connection.list_clusters()]:
        raise BadInput(
            f"job {record.job_id} ran on cluster {record.cluster!r}, and the database knows none of that name; say where it is to "
            "run: --cluster or --stack"
        )
    return record.cluster


def _handle(connection: Connection, record: JobRecord) -> RemoteJob:
    from runner.records import JobRecords
    from runner.remote.remote_job import RemoteJob

    def silent() -> str | None:
        found = JobRecords(connection.store).read(record.job_id)
        return f"{found.silent_seconds():.0f} s ago" if found and found.state == "LOST" else None

    return RemoteJob(connection.store, record.job_id, silent)
