"""How many rows a job may skip."""

from __future__ import annotations

from collections.abc import Sequence

from runner.backfill.plan import BackfillPlan
from runner.backfill.policy import ErrorPolicy
from runner.errors import BackfillFailed, RowError

MAX_SHOWN_ERRORS = 100


class SkipLimit:
    """Counts the rows that a job skips, those of earlier runs that it takes over included."""

    def __init__(self, policy: ErrorPolicy, plan: BackfillPlan) -> None:
        rows = plan.rows // max(len(plan.columns), 1)
        self._policy = policy
        self._allowed = policy.allowed(rows)
        self._rows = rows
        self._errors = [error for fragment in plan.staged for error in fragment.errors]
        self._count = len(self._errors)

    def count(self, rows: int, errors: Sequence[RowError] = ()) -> None:
        """So many rows more; fewer, where the worker that told of them died."""
        self._count += rows
        self._errors.extend(errors[: max(MAX_SHOWN_ERRORS - len(self._errors), 0)])

    def check(self) -> None:
        """End the job where there are too many.

        Raises:
            BackfillFailed: with the first errors.
        """
        if self._allowed is None or self._count <= self._allowed:
            return
        first = f"; one of them: {self._errors[0].error}: {self._errors[0].message}" if self._errors else ""
        raise BackfillFailed(
            f"{self._count:,} of {self._rows:,} rows failed, on_error={str(self._policy)!r} allows {self._allowed:,}{first}. "
            "Finished work is kept",
            self._errors[:MAX_SHOWN_ERRORS],
        )
