"""The components of the backfills that a stack declares."""

from __future__ import annotations

import pulumi

from infra.job import BackfillArgs, BackfillJob, BackfillSchedule
from infra.operator import KubeRayOperator
from stacks.preparing import Prepared
from stacks.settings import Settings


def declare_backfill(
    backfill: Prepared, settings: Settings, operator: KubeRayOperator | None, options: pulumi.ResourceOptions
) -> BackfillJob | BackfillSchedule:
    """Declare one; its outputs are exported under ``backfill-<name>``."""
    given = BackfillArgs(backfill.spec, backfill.cluster, backfill.driver, settings.wait, operator, settings.schedules)
    component = BackfillSchedule if backfill.spec.schedule else BackfillJob
    made = component(backfill.spec.name, given, options)
    pulumi.export(f"backfill-{backfill.spec.name}", made.outputs)
    return made
