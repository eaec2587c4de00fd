"""What a backfill did."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass, field
from typing import Any

from runner.errors import RowError


@dataclass(frozen=True)
class BackfillResult:
    """Outcome of a backfill.

    Attributes:
        rows_done: values published, over all columns; `rows_resumed` of them were taken over: an earlier run computed them, or this
            one before the table changed.
        rows_skipped: rows left NULL by the error policy; `errors` has the first of them, the job record all.
        rows_failed: rows whose failure ended the job.
        rows_left: rows that need work and were left for later, by ``limit`` or ``num_fragments``.
        rows_valid: rows that needed nothing.
        rows_stale: rows of an older function version, left as they are.
        rows_changed: rows whose inputs changed since they were computed, left as they are.
        rows_unknown: with ``stale=True``, rows of which it cannot be told whether their inputs changed.
        replans: what others did to the table that made the job plan anew, each time.
        unindexed: what indexes on the columns leave out now.
        bytes_read: of input columns, in memory; `bytes_written`: of published column files.
        seconds: by phase: ``plan``, ``start`` (of workers), ``compute``, ``commit``, ``total``.
        version_before, version_after: table versions; equal where there was nothing to do.
    """

    job_id: str
    table: str
    columns: tuple[str, ...]
    status: str
    executor: str
    workers: int = 0
    rows_done: int = 0
    rows_resumed: int = 0
    rows_skipped: int = 0
    rows_failed: int = 0
    rows_valid: int = 0
    rows_stale: int = 0
    rows_left: int = 0
    rows_changed: int = 0
    rows_unknown: int = 0
    replans: list[str] = field(default_factory=list)
    unindexed: list[str] = field(default_factory=list)
    bytes_read: int = 0
    bytes_written: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    version_before: int = 0
    version_after: int = 0
    errors: tuple[RowError, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "columns": list(self.columns), "errors": [error.to_dict() for error in self.errors]}

    def lines(self) -> list[tuple[str, str]]:
        """The result as ``(label, text)`` lines, without those that say nothing."""
        compute = self.seconds.get("compute", 0.0)
        rate = f" at {(self.rows_done - self.rows_resumed) / compute:,.0f} rows/s" if compute > 0 and self.rows_done else ""
        optional = [
            ("taken over", f"{self.rows_resumed:,} rows computed before", self.rows_resumed),
            ("skipped", f"{self.rows_skipped:,} rows left NULL by the error policy", self.rows_skipped),
            ("stale", f"{self.rows_stale:,} rows of an older function version (stale=True computes them)", self.rows_stale),
            ("left", f"{self.rows_left:,} rows for later (limit, num_fragments)", self.rows_left),
            ("inputs changed", f"{self.rows_changed:,} rows, since computed (stale=True computes them)", self.rows_changed),
            ("inputs unknown", f"{self.rows_unknown:,} rows may have changed since computed, it cannot be told", self.rows_unknown),
            ("planned anew", "; ".join(self.replans), self.replans),
            ("indexes", f"{'; '.join(self.unindexed)} (optimize_indices=True covers them)", self.unindexed),
        ]
        phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items() if name != "total")
        return [
            ("rows done", f"{self.rows_done:,}{rate}"),
            ("already done", f"{self.rows_valid:,}"),
            *((label, text) for label, text, shown in optional if shown),
            ("bytes", f"{_size(self.bytes_read)} read, {_size(self.bytes_written)} written"),
            ("seconds", f"{self.seconds.get('total', 0.0):.2f} ({phases})"),
            ("table version", f"{self.version_before} -> {self.version_after}"),
        ]

    @property
    def title(self) -> str:
        nothing = " (nothing to do)" if self.status == "DONE" and not self.rows_done and not self.rows_skipped else ""
        return f"backfill of {', '.join(self.columns)} in {self.table}: {self.status}{nothing}"

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {label:<14}{text}" for label, text in self.lines()), f"  {'job':<14}{self.job_id}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html.escape(label)}</th><td>{html.escape(text)}</td></tr>" for label, text in self.lines())
        errors = "".join(
            f"<tr><td>{error.row_address}</td><td>{html.escape(error.error)}</td><td>{html.escape(error.message)}</td></tr>"
            for error in self.errors[:20]
        )
        table = f"<table><tr><th>_rowaddr</th><th>error</th><th>message</th></tr>{errors}</table>" if errors else ""
        return f"<b>{html.escape(self.title)}</b><table>{rows}</table>{table}"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return ""
