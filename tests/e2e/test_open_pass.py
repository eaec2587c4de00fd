"""A worker that goes on at another version of the table: the function stays constructed, its inputs are those of that version."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import BinaryIO

import lance
import pyarrow as pa

from runner import Connection, udf
from runner.backfill.checkpoint import StagedFragment
from runner.backfill.planner import Planner
from runner.backfill.worker import Worker
from runner.targets import Request, resolve
from tests.e2e.helpers import calls, log_call

SCHEMA = pa.schema([pa.field("data", pa.large_binary(), metadata={"lance-encoding:blob": "true"})])


def test_the_function_stays_and_reads_files_of_the_new_version(db: Connection, log: Path) -> None:
    path, read = str(log), str(log.with_name("read.log"))

    @udf
    class Length:
        def setup(self) -> None:
            log_call(path, 1)

        def __call__(self, data: BinaryIO) -> int:
            content = data.read()
            log_call(read, len(content))
            return len(content)

    uri = f"{db.uri}/t.lance"
    lance.write_dataset(pa.table({"data": [b"a", b"bb"]}, schema=SCHEMA), uri)
    table = db.open_table("t")
    table.add_columns({"y": Length})
    first = resolve(Request(("y",)), table.to_lance(), "t", db.store, "job", allow_pickle=True)
    lance.write_dataset(pa.table({"data": [b"ccc"]}, schema=SCHEMA), uri, mode="append")
    later = dataclasses.replace(first, read_version=table.to_lance().version)
    worker = Worker()
    for settings, fragment in ((first, 0), (later, 1)):
        works = Planner(table.to_lance(settings.read_version), "t", settings).plan().works
        events = list(worker.run(settings, [work for work in works if work.fragment_id == fragment]))
        (staged,) = [event for event in events if isinstance(event, StagedFragment)]
        assert (staged.fragment_id, staged.computed) == (fragment, 2 - fragment)
    worker.close()
    assert calls(log) == [1]
    assert calls(log.with_name("read.log")) == [1, 2, 3]
