"""Declared backfills for tests: the least that one is, and what goes with it."""

from __future__ import annotations

from typing import Any

from infra.backfill_body import Driver
from infra.backfill_spec import BackfillSpec
from infra.spec import KubeRayClusterSpec, parse_spec

PLAIN: dict[str, Any] = {
    "name": "captions",
    "database": "s3://bucket/db",
    "table": "images",
    "columns": "caption",
    "cluster": "small",
}
DRIVER = Driver("python -m driver", {"env_vars": {"A": "b"}}, {"name": "dev", "pip": ["humanize==4.12.0"]})


def backfill(**fields: Any) -> BackfillSpec:
    return BackfillSpec.parse({**PLAIN, **fields}, "captions.yaml")


def cluster(**fields: Any) -> KubeRayClusterSpec:
    plain = {"name": "small", "namespace": "ray", "ray_version": "2.60.0", "python_version": "3.11"}
    found = parse_spec({**plain, **fields})
    assert isinstance(found, KubeRayClusterSpec)
    return found
