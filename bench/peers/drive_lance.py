"""One-process Lance: `add_columns` with a batch function; `update_columns` for missing rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from bench.functions import Function
from bench.peers.common import Job, main

BATCH_ROWS = 8192
CHECKPOINT_ROWS = 1024


class Lance:
    """`batch_udf`; with a checkpoint file where the job may be resumed."""

    job: Job

    @contextmanager
    def session(self, job: Job) -> Iterator[None]:
        self.job = job
        yield

    def declare(self, table: str, column: str, function: Function) -> None:
        """Nothing: the column comes with its values."""

    def fill(self, table: str, column: str, function: Function) -> dict[str, Any]:
        resumable = self.job.kind == "resume"
        transform = lance.batch_udf(
            output_schema=pa.schema([pa.field(column, function.dtype)]),
            checkpoint_file=f"{self.job.db}/checkpoint.sqlite" if resumable else None,
        )(function.batch(column))
        dataset = lance.dataset(self.job.uri(table))
        rows = CHECKPOINT_ROWS if resumable else BATCH_ROWS
        dataset.add_columns(transform, read_columns=[function.column], batch_size=rows)
        return {}

    def fill_missing(self, table: str, column: str, function: Function) -> dict[str, Any]:
        dataset = lance.dataset(self.job.uri(table))
        rows = dataset.to_table(columns=[function.column], filter=f"{column} IS NULL", with_row_address=True)
        values = function.array(rows.column(function.column).combine_chunks())
        addresses = rows.column("_rowaddr").combine_chunks()
        update = pa.table({"_rowaddr": addresses, column: values})
        fragments: list[Any] = []
        fields: set[int] = set()
        for number in pc.unique(pc.shift_right(addresses, 32)).to_pylist():
            mine = pc.equal(pc.shift_right(addresses, 32), number)
            fragment = dataset.get_fragment(number)
            assert fragment is not None
            changed, modified, *_ = fragment.update_columns(update.filter(mine), left_on="_rowaddr")
            fragments.append(changed)
            fields.update(modified)
        operation = lance.LanceOperation.Update(updated_fragments=fragments, fields_modified=sorted(fields))
        lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)
        return {}


if __name__ == "__main__":
    main(Lance())
