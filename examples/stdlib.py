"""The demo: the source files of this Python's standard library as a Lance table, and three columns computed of it.

``python -m examples.stdlib FOLDER`` makes the table where it is missing and runs the three backfills as one would by hand.
"""

from __future__ import annotations

import runpy
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from runner import connect

TABLE = "stdlib"
COLUMNS = {"filename_len": "filename_len", "sha256": "sha256", "names": "names"}
ROWS_PER_FILE = 500
ROWS_PER_BATCH = 100


def source_files() -> list[Path]:
    """Every ``.py`` file of the standard library; third-party packages, which live in a folder of it, left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return sorted(path for path in root.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts))


def batches(files: list[Path]) -> Iterator[object]:
    """The files as record batches: filename, size in bytes, content, and text where the bytes are UTF-8."""
    import pyarrow as pa

    root = Path(sysconfig.get_paths()["stdlib"])
    for start in range(0, len(files), ROWS_PER_BATCH):
        chosen = files[start : start + ROWS_PER_BATCH]
        contents = [path.read_bytes() for path in chosen]
        rows = {
            "filename": [str(path.relative_to(root)) for path in chosen],
            "size": [len(content) for content in contents],
            "content": contents,
            "text": [content.decode("utf-8", "replace") for content in contents],
        }
        yield pa.RecordBatch.from_pydict(rows, schema=schema())


def schema() -> object:
    """Arrow schema of the table before any column is computed."""
    import pyarrow as pa

    return pa.schema([("filename", pa.string()), ("size", pa.int64()), ("content", pa.binary()), ("text", pa.string())])


def make_table(folder: str) -> None:
    """Make the table, unless it is there."""
    import lance
    import pyarrow as pa

    if (Path(folder) / f"{TABLE}.lance").exists():
        return
    files = source_files()
    reader = pa.RecordBatchReader.from_batches(schema(), batches(files))
    lance.write_dataset(reader, f"{folder}/{TABLE}.lance", max_rows_per_file=ROWS_PER_FILE)
    print(f"made {folder}/{TABLE}.lance: {len(files):,} source files of the standard library\n", flush=True)


def show(folder: str) -> None:
    """Print the computed columns of a few rows, and what to type next."""
    import lance

    table = connect(folder).open_table(TABLE)
    wanted = "filename IN ('ast.py', 'json/__init__.py', 'dataclasses.py')"
    dataset: lance.LanceDataset = table.to_lance()
    rows = dataset.to_table(columns=["filename", *COLUMNS], filter=wanted, limit=3).to_pylist()
    print("The new columns:")
    for row in rows:
        print(f"  {row['filename']:<18} filename_len={row['filename_len']:<3} sha256={row['sha256'][:12]}...")
        for part, found in row["names"].items():
            print(f"  {'':<18} names.{part} = {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}")
    python = "python" if sys.prefix == sys.base_prefix else str(Path(sys.executable).relative_to(Path.cwd()))
    print(f"""
Next:
  {python} -m runner errors {folder} {TABLE} names       # files that do not parse, and why; {len(table.errors("names"))} of them
  {python} -m runner jobs list {folder}
  {python} -m runner plan {folder} {TABLE} names --force
  make backfill                                          # again: nothing to do""")


def main(folder: str) -> None:
    """Make the table and backfill its columns, each by the command one would type."""
    make_table(folder)
    for column, function in COLUMNS.items():
        command = ["runner", "backfill", folder, TABLE, column, "--udf", f"examples.stdlib_functions:{function}"]
        print("$ python -m", *command, flush=True)
        run_module(command)
        print(flush=True)
    show(folder)


def run_module(command: list[str]) -> None:
    """What ``python -m`` does with these words, in this process: pyarrow and Lance are imported once and not thrice."""
    sys.argv = list(command)
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as exc:
        if exc.code:
            raise


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".demo")
