"""Geneva, from PyPI, as a black box: `add_columns`, then `backfill` in a local Ray context."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.functions import Function
from bench.peers.common import Job, main


def text_len(text: str) -> int | None:
    """Geneva hands NULL to the function."""
    return None if text is None else len(text)


class Geneva:
    """`tuned` is its best known setting on few cores; `default` leaves all to Geneva."""

    database: Any
    tuned: bool

    @contextmanager
    def session(self, job: Job) -> Iterator[None]:
        self.tuned = job.mode == "tuned"
        self.database = importlib.import_module("geneva").connect(job.db)
        with self.database.local_ray_context():
            yield

    def declare(self, table: str, column: str, function: Function) -> None:
        udf = importlib.import_module("geneva").udf
        call = text_len if function.name == "text_len" else function.call
        options = {"num_cpus": 0.5} if self.tuned else {}
        self.database.open_table(table).add_columns({column: udf(call, data_type=function.dtype, **options)})

    def fill(self, table: str, column: str, function: Function) -> dict[str, Any]:
        options = {"concurrency": os.cpu_count()} if self.tuned else {}
        self.database.open_table(table).backfill(column, **options)
        return {}

    fill_missing = fill


if __name__ == "__main__":
    main(Geneva())
