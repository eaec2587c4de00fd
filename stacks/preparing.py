"""The backfills of a folder, as a stack's config asks: which, on which clusters, and what each needs of the runner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.backfill_body import Driver
from infra.backfill_files import cluster_of, read_backfills
from infra.backfill_spec import BackfillSpec
from infra.errors import BadSpec, InfraError
from infra.spec import ClusterSpec, KubeRayClusterSpec, parse_spec
from stacks.settings import Settings


@dataclass(frozen=True)
class Chosen:
    """A backfill that a stack declares.

    Attributes:
        file: that declares it.
        cluster: the one it names, with what the stack sets.
    """

    spec: BackfillSpec
    file: Path
    cluster: KubeRayClusterSpec


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
    return [prepare_backfill(item, send=send) for item in chosen_backfills(folder, clusters, made, settings)]


def chosen_backfills(
    folder: str | Path | None, clusters: Mapping[str, ClusterSpec], made: list[str], settings: Settings
) -> list[Chosen]:
    """The same, without what the runner and the database know; see `prepared`."""
    found = read_backfills(folder) if folder is not None and Path(folder).is_dir() else {}
    names = settings.backfills if settings.backfills is not None else list(found)
    unknown = [name for name in names if name not in found]
    if unknown:
        known = ", ".join(found) or "none"
        raise BadSpec(f"infill:backfills: no file in {folder} declares the backfill {unknown[0]!r}; there are {known}")
    chosen = []
    for name in dict.fromkeys(names):  # all of them, before the first is uploaded
        cluster = cluster_of(found[name][0], clusters, made)
        shape = parse_spec({**cluster.plain(), **settings.of_clusters()}, f"cluster {cluster.name}")
        assert isinstance(shape, KubeRayClusterSpec)
        chosen.append(Chosen(*found[name], shape))
    return chosen


def prepare_backfill(chosen: Chosen, *, send: bool) -> Prepared:
    """What a run needs of the runner; see `runner.declared.prepare`.

    Raises:
        BadSpec: what the runner does not take.
        InfraError: the database cannot be reached.
    """
    from runner.declared import prepare
    from runner.errors import RunnerError

    try:
        cluster, driver = prepare(chosen.spec, chosen.cluster, chosen.file.parent, send=send)
    except RunnerError as exc:
        raise InfraError(f"backfill {chosen.spec.name!r}: {exc}") from None
    return Prepared(chosen.spec, cluster, driver)
