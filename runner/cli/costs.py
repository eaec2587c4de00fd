"""`clusters cost`: what a cluster costs an hour, by a price table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.cluster_specs import DefinedIn, Source, kuberay, read_or_get
from runner.cli.common import AsJson, StorageOptions, exit_codes

if TYPE_CHECKING:
    from infra.costs import ClusterCost
    from infra.prices import PriceTable
    from infra.spec import KubeRayClusterSpec

PricesFile = Annotated[
    Path | None, typer.Option("--prices", metavar="FILE", help="Price table. Default: prices.yaml or stacks/prices.yaml here.")
]


def cost(
    source: Source,
    database: DefinedIn = None,
    prices: PricesFile = None,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Print what a cluster costs an hour at its smallest, at its largest, and now, by group."""
    with exit_codes():
        from infra.costs import cluster_cost

        spec = kuberay(read_or_get(source, database, storage_option), "has pods that cost something")
        table = required(prices)
        made = cluster_cost(spec, table)
        now, problem = _pods_now(spec)
        if now is not None:
            made = cluster_cost(spec, table, now)
        if as_json:
            typer.echo(json.dumps({**_plain(made), "source": table.source, "now_unknown_because": problem}))
            return
        _print_table(spec.name, made)
        typer.echo(cited(table), err=True)
        if problem:
            typer.echo(f"now: unknown: {problem}", err=True)


def required(file: Path | None) -> PriceTable:
    """The price table that is named or usual; refused where there is none."""
    from infra.errors import BadSpec
    from infra.prices import USUAL_FILES, find_prices

    table = find_prices(file)
    if table is None:
        raise BadSpec(f"no price table here: neither {' nor '.join(USUAL_FILES)}; name one with --prices FILE")
    return table


def cited(table: PriceTable) -> str:
    """Where prices are from."""
    return f"prices: {table.source}" + (f", {table.date:%Y-%m-%d}" if table.date else "")


def money(amount: float | None) -> str:
    """An amount to the cent, a smaller one to two digits."""
    if amount is None:
        return "unknown"
    return f"{amount:,.2f}" if amount >= 0.1 or not amount else f"{amount:.2g}"


def _pods_now(spec: KubeRayClusterSpec) -> tuple[dict[str, int] | None, str]:
    """Pods by group, or why that is not known."""
    from infra.errors import InfraError
    from runner.store import first_line

    try:
        from infra import live

        return live.pod_counts(spec), ""
    except InfraError as exc:
        return None, first_line(exc)
    except ImportError as exc:
        return None, f"{exc}; pip install 'infill[kubernetes]'"


def _plain(made: ClusterCost) -> dict[str, object]:
    totals = {name: getattr(made, name) for name in ("per_hour_min", "per_hour_max", "per_hour_now")}
    return {"currency": made.currency, **totals, "groups": [dataclasses.asdict(group) for group in made.groups]}


def _print_table(name: str, made: ClusterCost) -> None:
    """A line for each group: the price of a pod, and pods and price at the least, at the most and now."""
    rows = [(name, "PRICED BY", "A POD", "MIN", "MAX", "NOW")]
    for group in made.groups:
        now = money(None) if group.pods_now is None else _times(group.pods_now, group.per_hour_now)
        bounds = (_times(group.pods_min, group.per_hour_min), _times(group.pods_max, group.per_hour_max))
        rows.append((group.name, group.priced_by, money(group.per_pod), *bounds, now))
    total = (money(made.per_hour_min), money(made.per_hour_max), money(made.per_hour_now))
    rows.append((f"{made.currency} an hour", "", "", *total))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        left, right = zip(row[:2], widths[:2], strict=True), zip(row[2:], widths[2:], strict=True)
        typer.echo("  ".join([text.ljust(width) for text, width in left] + [text.rjust(width) for text, width in right]))


def _times(pods: int, amount: float | None) -> str:
    return f"{pods} x = {money(amount)}"
