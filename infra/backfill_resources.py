"""All resources of a declared backfill, for those who hand YAML to Kubernetes by other means than Pulumi. Pure."""

from __future__ import annotations

from typing import Any, Literal

from infra.backfill_body import Driver, own_resources, ray_cron_job_body, ray_job_body
from infra.backfill_spec import BackfillSpec
from infra.cron_body import cron_job_bodies
from infra.errors import BadSpec
from infra.spec import KubeRayClusterSpec

ScheduleKind = Literal["RayCronJob", "CronJob"]


def backfill_resources(
    spec: BackfillSpec, cluster: KubeRayClusterSpec, driver: Driver, kind: ScheduleKind = "CronJob"
) -> list[dict[str, Any]]:
    """Every resource that a backfill becomes, in the order in which they need each other.

    Not among them: the Secret of `infra.body.env_secret_data` of `infra.backfill_body.own_cluster`.

    Args:
        kind: what makes the runs of a schedule.

    Raises:
        BadSpec: a kind that the backfill cannot have.
    """
    check_kind(spec, kind)
    found = own_resources(spec, cluster)
    if spec.schedule is None:
        return [*found, ray_job_body(spec, cluster, driver)]
    if kind == "RayCronJob":
        return [*found, ray_cron_job_body(spec, cluster, driver)]
    return [*found, *cron_job_bodies(spec, cluster, driver)]


def check_kind(spec: BackfillSpec, kind: ScheduleKind) -> None:
    """Refuse a RayCronJob of runs that nothing would remove: KubeRay leaves those on a standing cluster alone.

    Raises:
        BadSpec: it is one.
    """
    if spec.schedule is not None and spec.standing and kind == "RayCronJob":
        raise BadSpec(f"backfill {spec.name!r}: nothing removes the runs of a RayCronJob on a standing cluster; use CronJob")
