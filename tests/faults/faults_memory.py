"""A backfill in a warm local Ray, told when to begin: ``python faults_memory.py DB FOLDER``. Ends with the result as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from fault_functions import digest

import runner

if __name__ == "__main__":
    database, folder = runner.connect(sys.argv[1]), Path(sys.argv[2])
    warm, table = database.open_table("warm"), database.open_table("t")
    with database.local_ray_context():
        warm.add_columns({"out": digest})
        warm.backfill("out", progress=False)
        (folder / "idle").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        result = table.backfill("out", progress=False)
        print(json.dumps({**result.to_dict(), "columns": list(result.columns)}))
