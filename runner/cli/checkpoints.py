"""`checkpoints gc`: what jobs left and no job will take up."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from runner.cli.common import AsJson, Database, DryRun, StorageOptions, age, exit_codes, open_database, print_collected

checkpoints_app = typer.Typer(help="Work that is staged and not published.", no_args_is_help=True, rich_markup_mode=None)


@checkpoints_app.command("gc")
def collect_checkpoints(
    database: Database,
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Nothing came to it for so long: 30d, 12h, 45m.")] = "30d",
    job_records: Annotated[bool, typer.Option("--job-records", help="Records of jobs that ended so long ago, too.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Remove staged work, leases and read tags of tables, columns and jobs that are gone, and staged work that is old."""
    from runner.leftovers import collect

    with exit_codes():
        connection = open_database(database, storage_option)
        found = collect(connection, age(older_than), job_records=job_records, dry_run=dry_run)
        if as_json:
            typer.echo(json.dumps([{**dataclasses.asdict(one), "used": one.used.isoformat()} for one in found]))
        else:
            lines = [(one.name, one.why, one.problem) for one in found]
            print_collected(lines, "leftovers", dry_run=dry_run, size=sum(one.bytes for one in found if not one.problem))
        if any(one.problem for one in found):
            raise typer.Exit(1)
