"""Geneva's packaging of a workspace, by its public API: ``pack_geneva.py WORKSPACE DATABASE``. Prints one line of JSON.

Run by the interpreter of Geneva's own environment. A workspace is packed and uploaded when a manifest is defined.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import time
from pathlib import Path

import geneva
from geneva.manifest import GenevaManifest


def main(workspace: str, database: str) -> None:
    os.chdir(workspace)
    db = geneva.connect(database)
    before = _zips(database)
    begun, cpu = time.monotonic(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        db.define_manifest("bench", GenevaManifest.create_pip("bench").build())
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    after = _zips(database)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    sent = sum(size for path, (size, stamp) in after.items() if before.get(path) != (size, stamp))
    print(json.dumps({"seconds": seconds, "cpu": cpu, "sent": sent, "layers": "", "peak": peak}))


def _zips(database: str) -> dict[str, tuple[int, int]]:
    """The uploads of a database: size and time of each."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in Path(database).rglob("*.zip")}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
