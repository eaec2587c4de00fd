"""Append, delete, update and compact a table until told to stop: ``python faults_writer.py TABLE ROWS FOLDER``.

Begins once the file ``begin`` is in the folder. Prints how often it did what. ``row`` stays unique.
"""

from __future__ import annotations

import collections
import json
import sys
import time
from pathlib import Path

import lance
import pyarrow as pa

ROWS_AT_ONCE = 1000
SECONDS_BETWEEN = 0.5
FIRST = ("append", "update", "delete", "compact", "update")
THEN = ("append", "delete")


def write(uri: str, what: str, step: int, rows: int) -> None:
    dataset = lance.dataset(uri)
    if what == "append":
        start = rows + step * ROWS_AT_ONCE
        lance.write_dataset(pa.table({"row": pa.array(range(start, start + ROWS_AT_ONCE), pa.int64())}), uri, mode="append")
    elif what == "update":
        dataset.update({"row": f"row + {rows * 10 * (step + 1)}"}, where=f"row % 10007 = {step}")
    elif what == "delete":
        dataset.delete(f"row % 9973 = {step}")
    else:
        dataset.optimize.compact_files(num_threads=1)


if __name__ == "__main__":
    uri, rows, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    while not (folder / "begin").exists():
        time.sleep(SECONDS_BETWEEN)
    done: collections.Counter[str] = collections.Counter()
    for what in FIRST:
        write(uri, what, sum(done.values()), rows)
        done[what] += 1
    (folder / "written").touch()
    while not (folder / "stop").exists():
        what = THEN[sum(done.values()) % len(THEN)]
        write(uri, what, sum(done.values()), rows)
        done[what] += 1
        time.sleep(SECONDS_BETWEEN)  # a rate, not a wait for anybody
    print(json.dumps(done))
