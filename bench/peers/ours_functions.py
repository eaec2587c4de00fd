"""The functions of the benchmark as Infill takes them; also named on the command line (W7)."""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from bench import functions
from runner import udf


@udf(data_type=pa.int32())
def text_len(text: str) -> int:
    return len(text)


@udf(data_type=pa.int32())
def text_len_arrow(text: pa.Array) -> pa.Array:
    return pc.utf8_length(text)


@udf(data_type=pa.float32())
def vector_norm(vector: pa.Array) -> pa.Array:
    return functions.vector_norm(vector)


@udf(data_type=pa.binary())
def digest(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()


@udf(data_type=pa.int64())
def slow(seq: int) -> int:
    return functions.slow(seq)


@udf(data_type=pa.int64(), concurrency=64, rate_limit=functions.CALLS_A_SECOND)
async def asked(seq: int) -> int:
    return await functions.asked(seq)


@udf(data_type=pa.int32())
class Loaded:
    def setup(self) -> None:
        functions.load()

    def __call__(self, text: pa.Array) -> pa.Array:
        return pc.utf8_length(text)


UDFS = {function.name: function for function in (text_len, text_len_arrow, vector_norm, digest, slow, asked)} | {"loaded": Loaded}
