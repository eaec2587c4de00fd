"""The cluster that a command's arguments mean: a file's, or one that a database defines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.common import open_database

if TYPE_CHECKING:
    from infra.spec import ClusterSpec, KubeRayClusterSpec

Source = Annotated[str, typer.Argument(metavar="FILE_OR_NAME", help="YAML file; with --db, name of a defined cluster.")]
DefinedIn = Annotated[str | None, typer.Option("--db", metavar="DB", help="Database that the name is defined in.")]


def read_or_get(source: str, database: str | None, storage_options: list[str] | None) -> ClusterSpec:
    """The spec of a file, or of that name in a database where one is given."""
    from infra.errors import BadSpec
    from infra.files import read_spec

    if database:
        return open_database(database, storage_options).get_cluster(source)
    if not Path(source).exists():
        raise BadSpec(f"there is no file {source}; for a cluster that a database defines, name it with --db DB")
    return read_spec(source)


def kuberay(spec: ClusterSpec, what: str) -> KubeRayClusterSpec:
    """The same, refused where it is not made in Kubernetes; `what` says what only such a cluster does."""
    from infra.errors import BadSpec
    from infra.spec import KubeRayClusterSpec

    if not isinstance(spec, KubeRayClusterSpec):
        raise BadSpec(f"cluster {spec.name!r} is of kind {spec.kind}; only one of kind kuberay {what}")
    return spec
