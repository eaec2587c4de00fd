"""Measure what an estimate stands on: a sample of the function, the size of the inputs, the workers that there would be."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infra.costs import cluster_cost, pod_bounds
from infra.groups import Group
from infra.kubernetes_names import parsed
from infra.spec import KubeRayClusterSpec
from runner.backfill.plan import BackfillPlan, field_ids
from runner.backfill.pool import Shape
from runner.backfill.tasks import tasks
from runner.backfill.work import FragmentWork, Pass
from runner.context import current_context
from runner.errors import BadInput
from runner.estimate import COMMIT_PLANS, COMMIT_SECONDS, Estimate, Workers, compute_seconds
from runner.layering import plan_only, resolve_layers
from runner.local_context import LocalContext
from runner.targets import Request, resolve

if TYPE_CHECKING:
    from infra.prices import PriceTable
    from runner.backfill.sample import Sample
    from runner.table import Table

CLUSTER_START_SECONDS = 60.0
"""Assumed of a cluster that is provisioned for the job: half a minute where nodes and images are there, minutes where not."""
THIS_PROCESS = Workers(1, "this process", 1, task_seconds=0.0)
RAY_MEMORY_SHARE = 0.7
"""Of a pod's memory, that Ray lends to workers; the rest is its object store, by default."""


@dataclass(frozen=True)
class SampleSize:
    """How much is tried; whichever ends first.

    Attributes:
        rows: so many at most, None for no bound.
        seconds: of the sample, without what a start takes.
    """

    rows: int | None = None
    seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.rows is not None and (isinstance(self.rows, bool) or self.rows < 1):
            raise BadInput(f"sample: rows={self.rows!r} must be a whole number above 0")
        if not 0 < self.seconds < math.inf:
            raise BadInput(f"sample: seconds={self.seconds!r} must be above 0")


def estimate(table: Table, request: Request, cluster: str | None, size: SampleSize | None, prices: PriceTable | None) -> Estimate:
    """See `Table.estimate`."""
    began = time.monotonic()
    plan = plan_only(table, request)
    plan_seconds = time.monotonic() - began
    passes = _passes(table, request, plan)
    shape = Shape.of(column.spec for one in passes for column in one.columns)
    spec = _spec(table, cluster)
    if spec is None:
        workers = _workers_here(cluster, shape, request.concurrency)
    else:
        workers = workers_of_cluster(spec, shape, plan.works, request.concurrency)
    samples: Sequence[Sample] = ()
    if size is not None and plan.works:
        trial = _Trial(_single(passes, plan), plan.works, request.concurrency, size)
        samples, workers = (trial.on(LocalContext("inline")), workers) if spec else trial.where_the_job_would_be(cluster, table)
    made = _made(plan, passes, workers, samples, plan_seconds, cpus=shape.num_cpus if spec else None)
    made = replace(made, stored_bytes=stored_bytes(table.to_lance(plan.read_version), passes, plan))
    if spec is None or prices is None or made.seconds is None:
        return made
    costs, hours = cluster_cost(spec, prices), made.seconds / 3600
    return replace(made, cost=costs.of_hours({name: pods * hours for name, pods in workers.pods.items()}), currency=costs.currency)


def _passes(table: Table, request: Request, plan: BackfillPlan) -> list[Pass]:
    """What `plan` was made of: one for each layer of columns."""
    connection, dataset = table.connection, table.to_lance(plan.read_version)
    layers, resolved, _ = resolve_layers(request, dataset, table.name, connection)
    return [
        resolve(resolved, dataset, table.name, connection.store, "sample", allow_pickle=connection.allow_pickle, columns=layer)
        for layer in layers
    ]


def stored_bytes(dataset: Any, passes: Sequence[Pass], plan: BackfillPlan) -> int | None:
    """Of the input columns of the rows to compute, as Lance's files have them: compressed, by the rows' share of each column."""
    rows = dataset.count_rows()
    if not rows or not plan.works:
        return 0
    on_disk = {field.id: int(field.bytes_on_disk) for field in dataset.stats.data_stats().fields}
    total = 0.0
    for work in plan.works:
        columns = [column for one in passes for column in one.columns if column.name in work.columns]
        ids = {id_ for column in columns for name in column.spec.inputs for id_ in field_ids(dataset, name)}
        if not ids <= on_disk.keys():
            return None
        total += sum(on_disk[id_] for id_ in ids) * work.rows / rows
    return round(total)


# -- workers


def _spec(table: Table, cluster: str | None) -> KubeRayClusterSpec | None:
    """The cluster of that name, None where the backfill would run here.

    Raises:
        BadInput: a cluster of which nobody knows here how large it is.
    """
    if cluster in (None, "inline", "local"):
        if cluster is None and not isinstance(current_context(), LocalContext | None):
            raise BadInput("this context is on a cluster elsewhere; name it: estimate(..., cluster=NAME)")
        return None
    assert cluster is not None
    spec = table.connection.get_cluster(cluster)
    if not isinstance(spec, KubeRayClusterSpec):
        raise BadInput(f"cluster {cluster!r} is of kind {spec.kind}, so how large it is cannot be known here; only kuberay's tells")
    return spec


def _workers_here(cluster: str | None, shape: Shape, concurrency: int | None) -> Workers:
    if cluster == "inline":
        return THIS_PROCESS
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = max(int(cpus / shape.num_cpus), 1)
    count = min(room, concurrency or room)
    return Workers(count, f"{cpus} CPUs of this machine", count, gpus=shape.num_gpus * count)


def workers_of_cluster(spec: KubeRayClusterSpec, shape: Shape, works: Sequence[FragmentWork], concurrency: int | None) -> Workers:
    """The workers that a cluster comes to for some works, and the pods that they need.

    One for each task, as far as they fit the cluster at its largest. Groups without accelerators are filled first, as Ray's
    autoscaler does.

    Raises:
        BadInput: not one fits.
    """
    groups = spec.groups()
    bounds = {name: pod_bounds(spec, group) for name, group in groups.items()}
    fitting = {name: _fitting(group, shape) for name, group in groups.items() if name != "head"}
    room = sum(count * bounds[name][1] for name, count in fitting.items())
    if not room:
        raise BadInput(
            f"no worker can be placed on cluster {spec.name!r}: one asks for {shape}, and no group has that; "
            "lower num_cpus, num_gpus or memory, or add a group to the cluster"
        )
    at_start = max(sum(count * bounds[name][0] for name, count in fitting.items()), 1)
    count = left = max(min(room, concurrency or room, len(tasks(works, at_start, room))), 1)
    pods = {name: least for name, (least, _) in bounds.items()}
    for name in sorted(fitting, key=lambda name: groups[name].gpus > 0):
        if fitting[name] and left > 0:
            needed = min(-(-left // fitting[name]), bounds[name][1])
            pods[name] = max(pods[name], needed)
            left -= needed * fitting[name]
    gpus = sum(pods[name] * group.gpus for name, group in groups.items())
    where = f"cluster {spec.name} with {', '.join(f'{pods[name]} x {name}' for name in fitting if pods[name])}"
    return Workers(count, where, at_start, pods, gpus, CLUSTER_START_SECONDS, is_start_assumed=True)


def _fitting(group: Group, shape: Shape) -> int:
    """Workers of a shape that one pod of a group holds."""
    has = {"CPU": math.ceil(parsed(group.cpus)), "GPU": group.gpus, "memory": float(parsed(group.memory)) * RAY_MEMORY_SHARE}
    asked = shape.resources or {"CPU": 1.0}
    return int(min(has[name] / amount for name, amount in asked.items()))


# -- the sample


def _single(passes: Sequence[Pass], plan: BackfillPlan) -> Pass:
    if len(passes) > 1:
        raise BadInput(
            f"{', '.join(plan.columns)} feed each other, and a sample needs inputs that are there; "
            f"estimate {passes[0].names} first, and the others once it is computed"
        )
    return passes[0]


@dataclass(frozen=True)
class _Trial:
    """What is sampled, and how much of it."""

    settings: Pass
    works: Sequence[FragmentWork]
    concurrency: int | None
    size: SampleSize

    def on(self, context: LocalContext) -> list[Sample]:
        """On the workers of a context."""
        return context.sample(self.settings, self.works, self.concurrency, self.size.rows, self.size.seconds)

    def where_the_job_would_be(self, cluster: str | None, table: Table) -> tuple[list[Sample], Workers]:
        """On the workers that the job would have here, started for it where no context has them, and what they are."""
        current = current_context()
        if cluster is None and isinstance(current, LocalContext):
            samples = self.on(current)
            if current.kind == "inline":
                return samples, THIS_PROCESS
            return samples, Workers(len(samples), "the context's", len(samples), gpus=self._gpus(samples))
        if cluster == "inline":
            return self.on(LocalContext("inline")), THIS_PROCESS
        began = time.monotonic()
        context = LocalContext("local", store=table.connection.store).open()
        try:
            samples = self.on(context)
        finally:
            context.close()
        start = max(time.monotonic() - began - max(sample.seconds for sample in samples), 0.0)
        return samples, Workers(len(samples), "this machine's", len(samples), gpus=self._gpus(samples), start_seconds=start)

    def _gpus(self, samples: Sequence[Sample]) -> float:
        return len(samples) * max(column.spec.num_gpus for column in self.settings.columns)


# -- the sum


def _made(
    plan: BackfillPlan,
    passes: Sequence[Pass],
    workers: Workers,
    samples: Sequence[Sample],
    plan_seconds: float,
    *,
    cpus: float | None,
) -> Estimate:
    count = len(tasks(plan.works, workers.at_start, workers.count))
    if not samples:
        return Estimate(plan, workers, count, plan_seconds=plan_seconds)
    limits = [column.spec.rate_limit for one in passes for column in one.columns if column.spec.rate_limit]
    rate = min(limits, default=None)
    return Estimate(
        plan,
        workers,
        count,
        samples=tuple(samples),
        plan_seconds=plan_seconds,
        setup_seconds=max(sample.setup_seconds for sample in samples),
        compute_seconds=compute_seconds(plan.works, samples, workers, cpus=cpus, rate_limit=rate),
        commit_seconds=COMMIT_SECONDS + COMMIT_PLANS * plan_seconds,
    )
