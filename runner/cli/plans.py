"""What `plan` prints: the plan, and what carrying it out takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.costs import cited, money

if TYPE_CHECKING:
    from infra.prices import PriceTable
    from runner.backfill.plan import BackfillPlan
    from runner.estimate import Estimate
    from runner.estimating import SampleSize
    from runner.table import Table

Sample = Annotated[
    str | None,
    typer.Option(metavar="ROWS|SECONDS", help="Run the function on some rows, for the time of all: 1000, or 2s. Writes nothing."),
]
EstimateCluster = Annotated[str, typer.Option(metavar="CLUSTER", help="Where it would run: inline, local, or a defined cluster.")]
_HIDDEN = ("works", "staged", "selected", "outdated")


def print_plan(made: BackfillPlan, as_json: bool) -> None:
    """A plan by itself."""
    typer.echo(json.dumps(_plain(made)) if as_json else made.describe())


def print_estimate(
    table: Table, columns: list[str], cluster: str, sample: str | None, prices: Path | None, as_json: bool, **options: Any
) -> None:
    """A plan with bytes, tasks and workers, and with a sample time, GPU hours and cost."""
    size = sample_size(sample) if sample is not None else None
    priced = _prices(cluster, prices)
    made = table.estimate(columns, sample=size, cluster=cluster, prices=priced, **options)
    if as_json:
        typer.echo(json.dumps({**_plain(made.plan), "estimate": made.to_dict()}))
        return
    typer.echo(made.plan.describe())
    if not made.plan.works:
        return
    for name, text in _lines(made, priced):
        typer.echo(f"  {name:<17} {text}")


def sample_size(text: str) -> SampleSize:
    """How much ``--sample`` asks for.

    Raises:
        BadInput: neither rows nor seconds.
    """
    from runner.errors import BadInput
    from runner.estimating import SampleSize

    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)s", text.strip())
    if not found:
        raise BadInput(f"--sample {text!r} is neither rows nor seconds; write 1000 or 2s")
    if found[1]:
        return SampleSize(rows=int(found[1]), seconds=float("1e9"))
    return SampleSize(seconds=float(found[2]))


def _prices(cluster: str, file: Path | None) -> PriceTable | None:
    from infra.prices import find_prices
    from runner.errors import BadInput

    if cluster in ("inline", "local"):
        if file is not None:
            raise BadInput(f"--prices {file}: it prices the pods of a cluster; name one by --cluster")
        return None
    return find_prices(file)


def _plain(made: BackfillPlan) -> dict[str, Any]:
    return {key: value for key, value in vars(made).items() if key not in _HIDDEN}


def _lines(made: Estimate, prices: PriceTable | None) -> list[tuple[str, str]]:
    from runner.packages.package import size_text

    workers = made.workers
    stored = "not known" if made.stored_bytes is None else f"{size_text(made.stored_bytes)} as stored"
    lines = [
        ("input", stored),
        ("tasks", f"{made.tasks:,} on {workers.count:,} workers: {workers.where}"),
    ]
    if made.seconds is None:
        return [*lines, ("time", "not estimated; --sample 2s runs the function on some rows")]
    row = sum(sample.row_seconds for sample in made.samples) / len(made.samples)
    lines.append(("sample", f"{made.sampled:,} rows, {_duration(row)} a row in one worker"))
    if made.failed:
        lines.append(("failed", f"{made.failed:,} rows of the sample"))
        errors = {f"{failure.error}: {failure.message}" for sample in made.samples for failure in sample.failures}
        lines += [("", error) for error in sorted(errors)]
    assumed = " (assumed)" if workers.is_start_assumed else ""
    phases = [
        f"start {_duration(workers.start_seconds)}{assumed}",
        f"set-up {_duration(made.setup_seconds)}",
        f"compute {_duration(made.compute_seconds)}",
        f"commit {_duration(made.commit_seconds)}",
    ]
    lines.append(("time", f"about {_duration(made.seconds)}: {', '.join(phases)}"))
    if workers.gpus:
        lines.append(("GPU hours", f"about {money(made.gpu_hours)}"))
    return lines + _cost(made, prices)


def _cost(made: Estimate, prices: PriceTable | None) -> list[tuple[str, str]]:
    if not made.workers.pods:
        return []
    if prices is None:
        return [("cost", "unknown: no price table; --prices FILE names one")]
    return [("cost", f"about {money(made.cost)} {made.currency} ({cited(prices)})")]


def _duration(seconds: float) -> str:
    """Two digits of a duration."""
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= 2 * length or (unit in ("s", "ms") and seconds >= length):
            return f"{seconds / length:.0f} {unit}" if seconds >= 9.95 * length else f"{seconds / length:.1f} {unit}"
    return f"{seconds * 1e6:.2g} µs"
