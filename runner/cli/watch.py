"""The commands of those who watch: what runs now, and the dashboard of its metrics."""

from __future__ import annotations

import typer


def dashboard() -> None:
    """Print a Grafana dashboard of the metrics that jobs export: import it, and choose the Prometheus that scrapes Ray's nodes."""
    from importlib import resources

    typer.echo(resources.files("runner.watch").joinpath("grafana.json").read_text("utf-8"), nl=False)
