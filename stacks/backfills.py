"""The backfills of a folder, as a stack's config asks: what is declared, and what each needs of the runner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi

from infra.backfill_body import Driver
from infra.backfill_files import cluster_of, read_backfills
from infra.backfill_spec import BackfillSpec
from infra.errors import BadSpec, InfraError
from infra.job import BackfillArgs, BackfillJob, BackfillSchedule
from infra.operator import KubeRayOperator
from infra.spec import ClusterSpec, KubeRayClusterSpec, parse_spec
from stacks.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """A backfill that is ready to be declared.

    Attributes:
        cluster: the one it runs on, or whose shape each run's own has, with what the stack sets.
    """

    spec: BackfillSpec
    cluster: KubeRayClusterSpec
    driver: Driver


def prepared(
    folder: str | Path | None, clusters: Mapping[str, ClusterSpec], made: list[str], settings: Settings, *, send: bool
) -> list[Prepared]:
    """The backfills of ``folder/*.yaml`` that a stack declares, all of them checked; none where there is no folder.

    Args:
        clusters: those that files declare.
        made: names of those that the stack makes.
        send: upload what runs need to their databases.

    Raises:
        BadSpec: a wrong file, a name that no file has, a cluster that nobody declares.
        InfraError: a database cannot be reached.
    """
    found = read_backfills(folder) if folder is not None and Path(folder).is_dir() else {}
    names = settings.backfills if settings.backfills is not None else list(found)
    unknown = [name for name in names if name not in found]
    if unknown:
        known = ", ".join(found) or "none"
        raise BadSpec(f"infill:backfills: no file in {folder} declares the backfill {unknown[0]!r}; there are {known}")
    shapes = {}
    for name in dict.fromkeys(names):  # all of them, before the first is uploaded
        cluster = cluster_of(found[name][0], clusters, made)
        shape = parse_spec({**cluster.plain(), **settings.of_clusters()}, f"cluster {cluster.name}")
        assert isinstance(shape, KubeRayClusterSpec)
        shapes[name] = shape
    return [_prepared(*found[name], shape, send) for name, shape in shapes.items()]


def _prepared(spec: BackfillSpec, file: Path, cluster: KubeRayClusterSpec, send: bool) -> Prepared:
    from runner.declared import prepare
    from runner.errors import RunnerError

    try:
        cluster, driver = prepare(spec, cluster, file.parent, send=send)
    except RunnerError as exc:
        raise InfraError(f"backfill {spec.name!r}: {exc}") from None
    return Prepared(spec, cluster, driver)


def declare_backfill(
    backfill: Prepared, settings: Settings, operator: KubeRayOperator | None, options: pulumi.ResourceOptions
) -> BackfillJob | BackfillSchedule:
    """Declare one; its outputs are exported under ``backfill-<name>``."""
    given = BackfillArgs(backfill.spec, backfill.cluster, backfill.driver, settings.wait, operator, settings.schedules)
    component = BackfillSchedule if backfill.spec.schedule else BackfillJob
    made = component(backfill.spec.name, given, options)
    pulumi.export(f"backfill-{backfill.spec.name}", made.outputs)
    return made
