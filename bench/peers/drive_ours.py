"""Infill: `add_columns`, then `backfill` in a context (`local` or `inline`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import runner
from bench import service
from bench.functions import Function
from bench.peers.common import Job, main
from bench.peers.ours_functions import UDFS


class Ours:
    """Defaults throughout."""

    database: Any

    @contextmanager
    def session(self, job: Job) -> Iterator[None]:
        self.database = runner.connect(job.db)
        with service.running() if job.function == "asked" else nullcontext(), self.database.context(cluster=job.mode):
            yield

    def declare(self, table: str, column: str, function: Function) -> None:
        self.database.open_table(table).add_columns({column: UDFS[function.name]})

    def fill(self, table: str, column: str, function: Function) -> dict[str, Any]:
        result = self.database.open_table(table).backfill(column)
        return {"phases": dict(result.seconds), "rows_done": result.rows_done}

    fill_missing = fill


if __name__ == "__main__":
    main(Ours())
