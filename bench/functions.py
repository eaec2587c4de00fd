"""The functions that every tool computes, in plain Python, without any tool's decorator.

They import nothing but numpy and pyarrow, so that they load alike in every environment.
No `from __future__ import annotations` here: some tools look at the annotations themselves.
"""

import asyncio
import functools
import hashlib
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CALLS_VARIABLE = "BENCH_CALLS"
SERVICE_VARIABLE = "BENCH_SERVICE"
SLOW_SECONDS = 0.00037
SETUP_SECONDS = 5.0
CALLS_A_SECOND = 400.0
DIMENSION = 256


def text_len(text: str) -> int:
    """W1: characters, one Python call a row."""
    return len(text)


def text_len_arrow(text: pa.Array) -> pa.Array:
    """W2: characters, one Arrow call a batch."""
    return pc.utf8_length(text)


def vector_norm(vector: pa.Array) -> pa.Array:
    """W3: Euclidean norm of each vector of a batch."""
    values = vector.flatten().to_numpy(zero_copy_only=False).reshape(-1, DIMENSION)
    return pa.array(np.sqrt(np.einsum("ij,ij->i", values, values)), pa.float32())


def digest(blob: bytes) -> bytes:
    """W4: SHA-256, one Python call a row."""
    return hashlib.sha256(blob).digest()


def slow(seq: int) -> int:
    """W6: a slow function that notes every call in a file, so that repeated calls can be counted."""
    end = time.perf_counter() + SLOW_SECONDS
    os.write(_calls_file(), struct.pack("<q", seq))
    while time.perf_counter() < end:
        pass
    return 3 * seq + 1


async def asked(seq: int) -> int:
    """W9: what a service on this machine answers after 50 ms."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ[SERVICE_VARIABLE]))
    writer.write(b"GET /%d HTTP/1.0\r\n\r\n" % seq)
    answer = await reader.read()
    writer.close()
    return int(answer.rpartition(b"\r\n")[2])


def load() -> None:
    """W10: what loading a model takes."""
    time.sleep(SETUP_SECONDS)


@functools.cache
def _calls_file() -> int:
    return os.open(os.environ[CALLS_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


@dataclass(frozen=True)
class Function:
    """A function of the benchmark with its input column and its output type."""

    name: str
    call: Callable[[Any], Any]
    column: str
    dtype: pa.DataType
    arrow: bool = False

    def array(self, values: pa.Array) -> pa.Array:
        """The output for a whole input array; NULL in, NULL out."""
        if self.arrow:
            return self.call(values)
        return pa.array([None if v is None else self.call(v) for v in values.to_pylist()], self.dtype)

    def batch(self, output: str) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
        """The function on record batches, as Lance and lance-ray take it."""

        def compute(batch: pa.RecordBatch) -> pa.RecordBatch:
            return pa.RecordBatch.from_arrays([self.array(batch.column(self.column))], names=[output])

        return compute


FUNCTIONS = {
    function.name: function
    for function in (
        Function("text_len", text_len, "text", pa.int32()),
        Function("text_len_arrow", text_len_arrow, "text", pa.int32(), arrow=True),
        Function("vector_norm", vector_norm, "vector", pa.float32(), arrow=True),
        Function("digest", digest, "blob", pa.binary()),
        Function("slow", slow, "seq", pa.int64()),
        Function("asked", asked, "seq", pa.int64()),
        Function("loaded", text_len_arrow, "text", pa.int32(), arrow=True),
    )
}
