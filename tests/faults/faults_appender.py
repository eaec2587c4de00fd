"""Append rows to a table until told to stop: ``python faults_appender.py TABLE FIRST_ROW FOLDER``. Ends with the rows appended."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import lance
import pyarrow as pa

ROWS_AT_ONCE = 1000
SECONDS_BETWEEN = 0.5

if __name__ == "__main__":
    uri, first, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    row = first
    while not (folder / "stop").exists():
        lance.write_dataset(pa.table({"row": pa.array(range(row, row + ROWS_AT_ONCE), pa.int64())}), uri, mode="append")
        row += ROWS_AT_ONCE
        (folder / "appended").write_text(str(row - first))
        time.sleep(SECONDS_BETWEEN)  # a rate, not a wait for anybody
    print(json.dumps({"rows": row - first}))
