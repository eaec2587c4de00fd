"""The functions that the pages' commands name, where a page has no ``features.py`` of its own."""

from __future__ import annotations

import pyarrow as pa

from runner import udf


@udf
def filename_len(filename: str) -> int:
    return len(filename)


@udf
def words(filename_len: int) -> str:
    return "one" if filename_len == 1 else str(filename_len)


@udf(on_error="skip")
def caption(filename: str) -> str:
    if "elephant" in filename:
        raise ValueError("no caption")
    return f"a picture of {filename}"


@udf(data_type=pa.list_(pa.float32(), 2))
def embedding(filename: str) -> list[float]:
    return [float(len(filename)), 1.0]


embed = embedding
