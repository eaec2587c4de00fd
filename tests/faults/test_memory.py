"""Memory is bounded by batches, not by fragments: a column of 1 GB in one fragment."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from fault_functions import digest
from faults_processes import DEADLINE, HERE, family, pss_mb, spawned, wait_until

import runner

ROWS, SIZE, CHUNK = 100_000, 10 << 10, 5_000
MOST_MB = 600.0
IDLE_SAMPLES = 5


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="faults-") as name:  # 1 GB, which pytest would keep
        yield Path(name)


def chunks() -> Iterator[Any]:
    random = np.random.default_rng(1)
    offsets = pa.py_buffer(np.arange(0, (CHUNK + 1) * SIZE, SIZE, dtype=np.int32).tobytes())
    for _ in range(ROWS // CHUNK):
        values = pa.py_buffer(random.bytes(CHUNK * SIZE))
        yield pa.record_batch([pa.Array.from_buffers(pa.binary(), CHUNK, [None, offsets, values])], ["data"])


def hashes() -> list[bytes]:
    return [hashlib.sha256(value.as_buffer()).digest() for batch in chunks() for value in batch.column(0)]


def test_a_gigabyte_of_bytes_adds_little_to_an_idle_ray(folder: Path) -> None:
    database = folder / "db"
    lance.write_dataset(chunks(), f"{database}/t.lance", schema=pa.schema({"data": pa.binary()}), max_bytes_per_file=8 << 30)
    lance.write_dataset(pa.table({"data": [b"x"] * 4}), f"{database}/warm.lance")
    runner.connect(database).open_table("t").add_columns({"out": digest})
    assert len(lance.dataset(f"{database}/t.lance").get_fragments()) == 1
    with spawned([sys.executable, str(HERE / "faults_memory.py"), str(database), str(folder)], folder) as child:
        wait_until((folder / "idle").exists, "Ray is warm", child=child)

        def tree() -> list[int]:
            return [child.pid, *(process.pid for process in family(child.pid, child.mark))]

        idle = max(pss_mb(tree()) for _ in range(IDLE_SAMPLES))
        (folder / "go").touch()
        peak, samples, end = idle, 0, time.monotonic() + DEADLINE
        while child.process.poll() is None and time.monotonic() < end:
            peak, samples = max(peak, pss_mb(tree())), samples + 1
        result = child.result()
    assert (result["executor"], result["rows_done"]) == ("local", ROWS)
    assert samples >= 10
    print(f"idle {idle:.0f} MB, peak {peak:.0f} MB: {peak - idle:.0f} MB added, {samples} samples, {result['seconds']}")
    assert peak - idle <= MOST_MB
    assert lance.dataset(f"{database}/t.lance").to_table(columns=["out"])["out"].to_pylist() == hashes()
