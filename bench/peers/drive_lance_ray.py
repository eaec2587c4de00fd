"""lance-ray: `lance_ray.add_columns` in a Ray that is already up."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.functions import Function
from bench.peers.common import Job, main

BATCH_ROWS = 8192


class LanceRay:
    """One pool process a core, batches of 8192 rows: its best setting here."""

    job: Job

    @contextmanager
    def session(self, job: Job) -> Iterator[None]:
        self.job = job
        ray = importlib.import_module("ray")
        ray.init(num_cpus=os.cpu_count())
        try:
            yield
        finally:
            ray.shutdown()

    def declare(self, table: str, column: str, function: Function) -> None:
        """Nothing: the column comes with its values."""

    def fill(self, table: str, column: str, function: Function) -> dict[str, Any]:
        importlib.import_module("lance_ray").add_columns(
            self.job.uri(table),
            transform=function.batch(column),
            read_columns=[function.column],
            batch_size=BATCH_ROWS,
            concurrency=os.cpu_count(),
        )
        return {}

    def fill_missing(self, table: str, column: str, function: Function) -> dict[str, Any]:
        raise SystemExit("lance-ray fills new columns only")


if __name__ == "__main__":
    main(LanceRay())
