"""Columns that feed columns: which are filled first, and what one that is fed by another is to know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.backfill.offsets import Offsets
from runner.backfill.plan import FIGURES, BackfillPlan, Part, Upstream
from runner.backfill.planner import Planner
from runner.backfill.reader import FragmentRows
from runner.errors import BadInput
from runner.targets import Request, resolve, target_columns

if TYPE_CHECKING:
    from runner.connection import Connection
    from runner.table import Table


def resolve_layers(
    request: Request, dataset: Any, table: str, connection: Connection
) -> tuple[list[tuple[str, ...]], Request, frozenset[str]]:
    """The columns of a request in layers, each fed by those before it only. Everything that was asked for is checked.

    Returns:
        The layers; the request with its functions resolved, so that this is done once; all columns that feed any of them.

    Raises:
        BadInput: the columns feed each other in a circle, or what `resolve` raises.
    """
    specs = {column.name: column.spec for column in target_columns(request, dataset, table, connection.store)}
    layers = in_layers({name: spec.inputs for name, spec in specs.items()})
    resolved = replace(request, udf=None, specs=specs, adopts=request.has_function)
    for layer in layers:
        resolve(resolved, dataset, table, connection.store, "check", allow_pickle=connection.allow_pickle, columns=layer)
    return layers, resolved, frozenset(name for spec in specs.values() for name in spec.inputs)


def in_layers(inputs: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Columns in layers, in the order given within each.

    Raises:
        BadInput: the columns feed each other in a circle.
    """
    left = dict(inputs)
    layers: list[tuple[str, ...]] = []
    while left:
        layer = tuple(name for name, names in left.items() if not any(other in left and other != name for other in names))
        if not layer:
            raise BadInput(f"the columns {circle(left)} feed each other in a circle; one of them must take other inputs")
        layers.append(layer)
        left = {name: names for name, names in left.items() if name not in layer}
    return layers


def circle(inputs: Mapping[str, Sequence[str]]) -> str:
    """A circle among columns of which every one is fed by another one, as ``a <- b <- a``."""
    seen = [next(iter(inputs))]
    while True:
        fed_by = next(name for name in inputs[seen[-1]] if name in inputs)
        if fed_by in seen:
            return " <- ".join([*seen[seen.index(fed_by) :], fed_by])
        seen.append(fed_by)


def changed_before(
    table: Table, request: Request, dataset: Any, layers: Sequence[Sequence[str]]
) -> dict[tuple[str, int, str], Offsets | None]:
    """Which rows' inputs had changed before a job: once it has written a column, the table alone does not tell any more."""
    found: dict[tuple[str, int, str], Offsets | None] = {}
    for layer in layers:
        found.update(_planner(table, request, dataset, layer, Upstream()).changed_now())
    return found


def plan_only(table: Table, request: Request) -> BackfillPlan:
    """The plan of a request, without running it."""
    dataset = table.to_lance()
    layers, request, _ = resolve_layers(request, dataset, table.name, table.connection)
    computed: dict[str, dict[int, Offsets]] = {}
    plans = []
    for index, layer in enumerate(layers):
        plan = _planner(table, request, dataset, layer, Upstream(computed)).plan()
        plans.append(plan)
        if index + 1 < len(layers):
            _note(table, request, dataset, layer, plan, computed)
    return plans[0] if len(plans) == 1 else _joined(plans, request)


def _planner(table: Table, request: Request, dataset: Any, layer: Sequence[str], upstream: Upstream) -> Planner:
    connection = table.connection
    settings = resolve(request, dataset, table.name, connection.store, "plan", allow_pickle=connection.allow_pickle, columns=layer)
    return Planner(dataset, table.name, settings, Part(request.limit, request.num_fragments), upstream)


def _note(
    table: Table, request: Request, dataset: Any, layer: Sequence[str], plan: BackfillPlan, computed: dict[str, dict[int, Offsets]]
) -> None:
    connection = table.connection
    settings = resolve(request, dataset, table.name, connection.store, "plan", allow_pickle=connection.allow_pickle, columns=layer)
    for work in plan.selected:
        rows = FragmentRows(dataset.get_fragment(work.fragment_id))
        for name in work.columns:
            computed.setdefault(name, {})[work.fragment_id] = work.selected(rows, settings, work.row_map(settings))


def _joined(plans: Sequence[BackfillPlan], request: Request) -> BackfillPlan:
    works = tuple(work for plan in plans for work in plan.selected)
    return replace(
        plans[0],
        columns=request.columns,
        versions=tuple(version for plan in plans for version in plan.versions),
        fragments=len({work.fragment_id for work in works}),
        works=tuple(work for plan in plans for work in plan.works),
        staged=tuple(fragment for plan in plans for fragment in plan.staged),
        selected=works,
        outdated={name: fragments for plan in plans for name, fragments in plan.outdated.items()},
        **{name: sum(getattr(plan, name) for plan in plans) for name in FIGURES},
    )
