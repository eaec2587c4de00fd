"""The commands of those who watch: what runs now, and the dashboard of its metrics."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.common import AsJson, Database, StorageOptions, exit_codes, open_database

if TYPE_CHECKING:
    from rich.console import Console

    from runner.watch.top import Top

RECORDS_READ = 30


def top(
    database: Database,
    once: Annotated[bool, typer.Option("--once", help="Print what is now, and end.")] = False,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.5, help="Between two looks.")] = 2.0,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Show what runs now: state, rows, rows a second, time left and workers of each job. Ctrl-C ends it, not the jobs."""
    import dataclasses

    from rich.console import Console

    from runner.watch.top import Top, render

    with exit_codes():
        connection = open_database(database, storage_option)
        watched = Top(lambda: connection.jobs(limit=RECORDS_READ))
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(line) for line in watched.look()]))
            return
        console = Console()
        if once or not console.is_terminal:
            console.print(render(watched.look()))
            return
        _follow(watched, console, interval)


def _follow(watched: Top, console: Console, interval: float) -> None:
    from contextlib import suppress

    from rich.live import Live

    from runner.watch.top import render

    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(render(watched.look()), refresh=True)
            time.sleep(interval)


def dashboard() -> None:
    """Print a Grafana dashboard of the metrics that jobs export: import it, and choose the Prometheus that scrapes Ray's nodes."""
    from importlib import resources

    typer.echo(resources.files("runner.watch").joinpath("grafana.json").read_text("utf-8"), nl=False)
