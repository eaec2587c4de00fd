"""Declared backfills as YAML files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.backfill_spec import BackfillSpec
from infra.errors import BadSpec
from infra.files import read_named, read_yaml
from infra.spec import ClusterSpec, KubeRayClusterSpec


def read_backfill(path: str | Path) -> BackfillSpec:
    """The backfill that a YAML or JSON file declares.

    Raises:
        BadSpec: no such file, no YAML, or a wrong declaration; with file, field and remedy.
    """
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        raise BadSpec(f"{path}: a backfill is a mapping with a name, not {type(data).__name__}")
    return BackfillSpec.parse(data, str(path))


def read_backfills(folder: str | Path) -> dict[str, tuple[BackfillSpec, Path]]:
    """The backfills of all ``*.yaml`` and ``*.yml`` files of a folder, by name, each with its file.

    Raises:
        BadSpec: no such folder; every problem of every file; a name that two files use.
    """
    return read_named(folder, "backfill", read_backfill)


def cluster_of(spec: BackfillSpec, clusters: Mapping[str, ClusterSpec], made: Iterable[str] | None = None) -> KubeRayClusterSpec:
    """The cluster that a backfill names.

    Args:
        clusters: those that files declare, by name.
        made: names of those that the stack makes, which alone stand. Default: all.

    Raises:
        BadSpec: nobody declares it, it is not one of Kubernetes, or it is to be standing and is not made.
    """
    what = f"backfill {spec.name!r}: cluster:"
    if spec.cluster not in clusters:
        raise BadSpec(f"{what} nobody declares {spec.cluster!r}; declared are {', '.join(sorted(clusters)) or 'none'}")
    found = clusters[spec.cluster]
    if not isinstance(found, KubeRayClusterSpec):
        raise BadSpec(f"{what} {spec.cluster!r} is of kind {found.kind}; a declared backfill runs on one of kind kuberay")
    if spec.standing and made is not None and spec.cluster not in set(made):
        raise BadSpec(
            f"{what} {spec.cluster!r} is declared, and this stack does not make it; name it in infill:clusters, or drop standing"
        )
    return found


def json_schema() -> dict[str, Any]:
    """JSON Schema of a backfill's file, for editors and CI."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **BackfillSpec.model_json_schema()}
    return dict(json.loads(json.dumps(schema)))
