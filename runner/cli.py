"""The command line. Every command is one call of the library; nothing heavy is imported before it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli_clusters import clusters_app
from runner.cli_common import AsJson, Database, StorageOptions, exit_codes, open_database
from runner.cli_eks import eks_token
from runner.cli_manifests import manifests_app
from runner.cli_packages import package, packages_app

if TYPE_CHECKING:
    from runner.table import Table

EXIT_CODES = """
Exit codes: 0 done, or nothing to do; 1 the job failed; 2 something given is wrong and nothing was changed;
3 the table or column is in use or changed meanwhile, run again; 130 interrupted, finished work is kept.
"""

app = typer.Typer(
    name="infill",
    help="Backfill computed columns of Lance tables on Ray." + EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
jobs_app = typer.Typer(help="Past and running backfills.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(jobs_app, name="jobs")
app.add_typer(clusters_app, name="clusters")
app.add_typer(manifests_app, name="manifests")
app.add_typer(packages_app, name="packages")


class Cluster(StrEnum):
    inline = "inline"
    local = "local"


TableName = Annotated[str, typer.Argument(metavar="TABLE", help="Table in it.")]
Columns = Annotated[list[str], typer.Argument(metavar="COLUMN...", help="Column to compute; several are computed in one pass.")]
Function = Annotated[
    str | None, typer.Option("--udf", metavar="MODULE:FUNCTION", help="The function. Adds the column where it is missing.")
]
Inputs = Annotated[
    str | None, typer.Option(metavar="A,B", help="Columns that feed a new column's function. Default: its parameters' names.")
]
Where = Annotated[str | None, typer.Option(metavar="SQL", help="Compute exactly the rows that match.")]
Stale = Annotated[bool, typer.Option("--stale", help="Compute rows of older function versions too.")]
Force = Annotated[bool, typer.Option("--force", help="Compute rows even where this version made them.")]


@app.command(epilog=EXIT_CODES)
def backfill(
    database: Database,
    table: TableName,
    columns: Columns,
    udf: Function = None,
    inputs: Inputs = None,
    where: Where = None,
    stale: Stale = False,
    force: Force = False,
    cluster: Annotated[Cluster, typer.Option(help="This process, or Ray on this machine.")] = Cluster.local,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Most workers to use.")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Rows in a call of a batch function.")] = None,
    on_error: Annotated[
        str | None, typer.Option(metavar="POLICY", help="fail, skip, skip:100, skip:1%, retry:N or retry:N,skip.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Longest time for one call of the function.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Compute what is missing of a column and publish it in one new table version."""
    from runner.targets import Request, check_where

    with exit_codes():
        opened = open_database(database, storage_option).open_table(table)
        function = _function(udf)
        missing = [name for name in columns if name not in opened.schema.names]
        if dry_run and missing and function is not None:
            _print_new(opened, missing, as_json)
            return
        if dry_run:
            _print_plan(opened, columns, function, where=where, stale=stale, force=force, as_json=as_json)
            return
        options: dict[str, Any] = {
            "where": where, "stale": stale, "force": force, "concurrency": concurrency,
            "batch_size": batch_size, "on_error": on_error, "timeout": timeout,
        }  # fmt: skip
        if missing and function is not None:
            check_where(Request(tuple(columns), **options).where, opened.to_lance())
            opened.add_columns(_transforms(function, missing, inputs))
            function = None if missing == columns else function
        with _lazy_context(cluster):
            result = opened.backfill(columns, udf=function, **options)
        typer.echo(json.dumps(result.to_dict()) if as_json else str(result))


@app.command()
def plan(
    database: Database,
    table: TableName,
    columns: Columns,
    udf: Function = None,
    where: Where = None,
    stale: Stale = False,
    force: Force = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Show what a backfill would do now. Changes nothing."""
    with exit_codes():
        opened = open_database(database, storage_option).open_table(table)
        _print_plan(opened, columns, _function(udf), where=where, stale=stale, force=force, as_json=as_json)


@app.command()
def errors(
    database: Database,
    table: TableName,
    column: Annotated[str, typer.Argument(metavar="COLUMN", help="Computed column.")],
    tracebacks: Annotated[bool, typer.Option("--traceback", help="Print tracebacks too.")] = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """List the rows of a column that are NULL because its function failed on them."""
    with exit_codes():
        found = open_database(database, storage_option).open_table(table).errors(column)
        if as_json:
            typer.echo(json.dumps([error.to_dict() for error in found]))
            return
        for error in found:
            typer.echo(f"{error.row_address}  {error.error}: {error.message}")
            if tracebacks:
                typer.echo(error.traceback)
        typer.echo(f'{len(found)} rows; run them again with --where "_rowaddr IN (...)"' if found else "no rows failed", err=True)


@jobs_app.command("list")
def list_jobs(
    database: Database,
    table: Annotated[str | None, typer.Option(metavar="TABLE", help="Of this table only.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the latest.")] = 20,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """List backfills, the latest first."""
    import dataclasses

    with exit_codes():
        records = open_database(database, storage_option).jobs(table, limit)
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(record) for record in records]))
            return
        for record in records:
            rows = f"{record.rows_done:,} of {record.rows_total:,} rows"
            typer.echo(
                f"{record.job_id}  {record.status:<9}  {record.table}.{','.join(record.columns)}  {rows}  {record.started_at}"
            )


@jobs_app.command("show")
def show_job(
    database: Database,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id, or the beginning of it.")],
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Show all that is recorded of a backfill."""
    import dataclasses

    with exit_codes():
        record = dataclasses.asdict(open_database(database, storage_option).job(job_id))
        if as_json:
            typer.echo(json.dumps(record))
            return
        for name, value in record.items():
            if value not in (None, {}, []):
                typer.echo(f"{name:<13} {value if isinstance(value, str) else json.dumps(value)}")


app.command("package")(package)
app.command("eks-token")(eks_token)


def _function(path: str | None) -> Any:
    from runner.shipping import import_udf

    return import_udf(path) if path else None


def _transforms(function: Any, missing: list[str], inputs: str | None) -> dict[str, Any]:
    function = function.with_inputs(inputs.split(",")) if inputs else function
    if len(missing) == 1:
        return {missing[0]: function}
    outputs = function.outputs()
    return {name: outputs.get(name, function) for name in missing}


@contextmanager
def _lazy_context(cluster: Cluster) -> Iterator[None]:
    """``inline`` opens its context; ``local`` leaves it to the backfill, which starts Ray only when there is work."""
    from runner.context import Context

    if cluster is Cluster.local:
        yield
        return
    with Context("inline"):
        yield


def _print_plan(table: Table, columns: list[str], function: Any, *, as_json: bool, **options: Any) -> None:
    made = table.plan(columns, udf=function, **options)
    if not as_json:
        typer.echo(made.describe())
        return
    hidden = ("works", "staged")
    typer.echo(json.dumps({key: value for key, value in vars(made).items() if key not in hidden}))


def _print_new(table: Table, missing: list[str], as_json: bool) -> None:
    rows = table.to_lance().count_rows()
    if as_json:
        typer.echo(json.dumps({"table": table.name, "new_columns": missing, "rows": rows * len(missing)}))
    else:
        typer.echo(f"would add {', '.join(missing)} to {table.name} and compute {rows:,} rows")
