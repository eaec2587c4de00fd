"""The command line. Every command is one call of the library; nothing heavy is imported before it runs."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.checkpoints import checkpoints_app
from runner.cli.clusters import clusters_app
from runner.cli.common import AsJson, Database, StorageOptions, exit_codes, open_database
from runner.cli.contexts import Cluster, Manifest, OnExit, Place, Reuse, Stack, TimeToLive, WaitTimeout
from runner.cli.costs import PricesFile
from runner.cli.diff import diff
from runner.cli.doctor import doctor
from runner.cli.eks import eks_token
from runner.cli.gitops import gitops
from runner.cli.jobs import jobs_app
from runner.cli.manifests import manifests_app
from runner.cli.packages import package, packages_app
from runner.cli.plans import EstimateCluster, Sample, print_estimate, print_plan
from runner.cli.policy import policy_app
from runner.cli.render import Name, Render, Schedule, print_rendered
from runner.cli.trees import render as render_tree
from runner.cli.watch import dashboard, top

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
app.add_typer(jobs_app, name="jobs")
app.add_typer(clusters_app, name="clusters")
app.add_typer(manifests_app, name="manifests")
app.add_typer(packages_app, name="packages")
app.add_typer(policy_app, name="policy")
app.add_typer(checkpoints_app, name="checkpoints")


TableName = Annotated[str, typer.Argument(metavar="TABLE", help="Table in it.")]
Columns = Annotated[list[str], typer.Argument(metavar="COLUMN...", help="Column to compute; several are computed in one pass.")]
Function = Annotated[
    str | None, typer.Option("--udf", metavar="MODULE:FUNCTION", help="The function. Adds the column where it is missing.")
]
Inputs = Annotated[
    str | None, typer.Option(metavar="A,B", help="Columns that feed a new column's function. Default: its parameters' names.")
]
Where = Annotated[str | None, typer.Option(metavar="SQL", help="Compute exactly the rows that match.")]
Stale = Annotated[
    bool, typer.Option("--stale", help="Compute rows of older function versions, and rows whose inputs changed, too.")
]
Force = Annotated[bool, typer.Option("--force", help="Compute rows even where this version made them.")]
OnlyFailed = Annotated[bool, typer.Option("--only-failed", help="Compute the rows that the error policy skipped, and no others.")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Compute so many rows of each column at most.")]
NumFragments = Annotated[int | None, typer.Option(metavar="N", help="Fill so many fragments at most.")]

Concurrency = Annotated[int | None, typer.Option(metavar="N", help="Most workers to use.")]
BatchSize = Annotated[int | None, typer.Option(metavar="N", help="Rows in a call of a batch function.")]
Timeout = Annotated[float | None, typer.Option(metavar="SECONDS", help="Longest time for one call of the function.")]


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
    only_failed: OnlyFailed = False,
    limit: Limit = None,
    num_fragments: NumFragments = None,
    commit_every: Annotated[int | None, typer.Option(metavar="N", help="Publish whenever so many rows more are done.")] = None,
    optimize_indices: Annotated[
        bool, typer.Option("--optimize-indices", help="Have indexes on the columns cover what was recomputed.")
    ] = False,
    cluster: Cluster = "local",
    manifest: Manifest = None,
    stack: Stack = None,
    on_exit: OnExit = "delete",
    wait_timeout: WaitTimeout = None,
    reuse: Reuse = "match",
    time_to_live: TimeToLive = None,
    detach: Annotated[bool, typer.Option("--detach", help="On a cluster: return once the job is submitted.")] = False,
    concurrency: Concurrency = None,
    batch_size: BatchSize = None,
    on_error: Annotated[
        str | None, typer.Option(metavar="POLICY", help="fail, skip, skip:100, skip:1%, retry:N or retry:N,skip.")
    ] = None,
    timeout: Timeout = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    render: Render = None,
    schedule: Schedule = None,
    name: Name = None,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Compute what is missing of a column and publish it in one new table version."""
    from runner.new_columns import add_missing

    if render is not None:
        _render(locals())
        return
    with exit_codes():
        opened = open_database(database, storage_option).open_table(table)
        function = _function(udf)
        rows = _which_rows(where, stale, force, only_failed, limit, num_fragments)
        missing = [name for name in columns if name not in opened.schema.names]
        if dry_run and missing and function is not None:
            _print_new(opened, missing, as_json)
            return
        if dry_run:
            print_plan(opened.plan(columns, udf=function, **rows), as_json)
            return
        options: dict[str, Any] = {
            "columns": columns, **rows, "commit_every": commit_every, "optimize_indices": optimize_indices,
            "concurrency": concurrency, "batch_size": batch_size, "on_error": on_error, "timeout": timeout,
        }  # fmt: skip
        options["udf"] = add_missing(opened, function, inputs.split(",") if inputs else None, options)
        place = Place(cluster, manifest, stack, on_exit, wait_timeout, reuse, time_to_live)
        if detach:
            _submit(opened, place, options)
            return
        with _context(opened, place, options):
            result = opened.backfill(**options)
        typer.echo(json.dumps(result.to_dict()) if as_json else str(result))


def _render(given: dict[str, Any]) -> None:
    """The command's arguments, as those of a declared backfill."""
    rows = ("where", "stale", "force", "only_failed", "commit_every", "optimize_indices")
    others = ("concurrency", "batch_size", "on_error", "timeout", "cluster", "manifest", "on_exit", "schedule", "name")
    with exit_codes():
        connection = open_database(given["database"], given["storage_option"])
        fields = {
            **{name: given[name] for name in ("table", "columns", *rows, *others)},
            "database": connection.uri,
            "function": given["udf"],
            "inputs": given["inputs"].split(",") if given["inputs"] else None,
            "storage_options": connection.store.storage_options,
        }
        refused = {f"--{name.replace('_', '-')}": given[name] for name in ("limit", "num_fragments", "stack", "wait_timeout")}
        refused |= {"--detach": given["detach"], "--dry-run": given["dry_run"], "--json": given["as_json"]}
        print_rendered(connection, given["render"], fields, refused)


@app.command()
def plan(
    database: Database,
    table: TableName,
    columns: Columns,
    udf: Function = None,
    where: Where = None,
    stale: Stale = False,
    force: Force = False,
    only_failed: OnlyFailed = False,
    limit: Limit = None,
    num_fragments: NumFragments = None,
    sample: Sample = None,
    cluster: EstimateCluster = "local",
    prices: PricesFile = None,
    concurrency: Concurrency = None,
    batch_size: BatchSize = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Show what a backfill would do now; with --sample, how long it takes and what it costs. Changes nothing."""
    with exit_codes():
        opened = open_database(database, storage_option).open_table(table)
        options = _which_rows(where, stale, force, only_failed, limit, num_fragments)
        options |= {"udf": _function(udf), "concurrency": concurrency, "batch_size": batch_size, "timeout": timeout}
        print_estimate(opened, columns, cluster, sample, prices, as_json, **options)


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
        typer.echo(f"{len(found)} rows; run them again with --only-failed" if found else "no rows failed", err=True)


app.command("package")(package)
app.command("eks-token")(eks_token)
app.command("top")(top)
app.command("dashboard")(dashboard)
app.command("render")(render_tree)
app.command("diff")(diff)
app.command("gitops")(gitops)
app.command("doctor")(doctor)


_ROWS = ("where", "stale", "force", "only_failed", "limit", "num_fragments")


def _which_rows(*given: Any) -> dict[str, Any]:
    """The options that say which rows, by name."""
    return dict(zip(_ROWS, given, strict=True))


def _function(path: str | None) -> Any:
    from runner.shipping import import_udf

    return import_udf(path) if path else None


def _context(table: Table, place: Place, options: dict[str, Any]) -> AbstractContextManager[Any]:
    """Where the work runs; nothing is started where there is none. Ray on this machine is left to the backfill to start."""
    from runner.local_context import LocalContext

    if place.is_default:
        return nullcontext()
    context = place.open(table.connection)  # refuses what is wrong in any case
    asked = {name: options[name] for name in ("columns", "udf", *_ROWS)}
    return LocalContext("inline") if table.plan(**asked).is_empty else context


def _submit(table: Table, place: Place, options: dict[str, Any]) -> None:
    from runner.errors import BadInput
    from runner.remote.cluster_context import ClusterContext

    context = place.open(table.connection)
    if not isinstance(context, ClusterContext):
        raise BadInput("--detach needs a cluster that goes on without this process: --cluster NAME or ADDRESS, or --stack")
    with context:
        job = table.backfill_async(**options)
        context.detach()
    typer.echo(f"submitted job {job.job_id}; `python -m runner jobs attach {table.connection.uri} {job.job_id}` follows it")


def _print_new(table: Table, missing: list[str], as_json: bool) -> None:
    rows = table.to_lance().count_rows()
    if as_json:
        typer.echo(json.dumps({"table": table.name, "new_columns": missing, "rows": rows * len(missing)}))
    else:
        typer.echo(f"would add {', '.join(missing)} to {table.name} and compute {rows:,} rows")
