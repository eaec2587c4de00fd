"""RESULTS.md and results.json from the records of a run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.targets import Record, Results, judge
from bench.workloads import TOOLS, WORKLOADS, Workload

BUSY_CORES = 0.35
LONG_S = 2.0
RESUME_COLUMNS = (
    "tool",
    "round",
    "killed at",
    "calls before",
    "calls after",
    "redone",
    "redone s a worker",
    "2nd wall s",
)
BYTE_COLUMNS = ("workload", "tool", "published", "of raw", "of lance", "all", "versions")

NOTES = """\
- Job time is the one call that fills the column, in a context (or a Ray) that is up and has done a tiny job of 1,000
  rows; W7 alone is cold: the whole process, Ray's start and stop included. For ours W7 is
  `python -m runner backfill --udf`. Declaring the column (`add_columns`, metadata only, some milliseconds) is outside the
  job for ours and for Geneva; for one-process Lance and lance-ray declaring and filling are one call.
- Every run is a fresh process on a fresh copy of the table (its immutable data files hard-linked, so the page cache is
  warm for every tool: no disk test). The tools take turns inside each workload. Every value, and the order of rows, is
  checked after every run.
- CPU is user + system of all processes of the run from its start to its end, Ray's daemons included, sampled every
  0.1 s.
- PSS is summed over the same processes every 0.2 s, in one extra run of W1 and W4 whose times count nowhere. "Before"
  is the last sample before the job starts (warm context), "peak" the highest of the whole run.
- Raw bytes are the Arrow buffers of the column; Lance packs small integers, so one-process Lance's bytes are the
  stricter measure. Published bytes are the growth of the table's data folder in the job; "all" is the growth of the
  whole database folder (records, checkpoints, manifests).
- W5: the column is declared by the tool itself and filled but for the missing rows with plain Lance
  (`DataReplacement`). lance-ray has no call for missing rows.
- W6: the function takes 0.37 ms a row and notes each call. The process is killed with SIGKILL (67.5 %, 35 %, 50 % of
  the rows done, by round), its workers may go on until they end by themselves, then the same command runs again.
  Redone are calls beyond the first of a row, over the whole table. lance-ray is left out: it cannot resume.
- W9: the service is a process on the same machine; each call is a connection of its own. W10: the median includes 5 s of
  `setup`, once on each worker, all at the same time. W11: a column with `lance-encoding:blob`, the parameter `bytes`.
- Foreign load is how many cores other processes of the machine kept busy during a run (told of runs over 2 s).
"""


def write(folder: Path, results: Results, rounds: int, quick: bool) -> str:
    """Write both files; the text of RESULTS.md."""
    verdicts = judge(results)
    machine = _machine()
    text = "\n".join(_document(results, machine, rounds, quick)) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(text)
    record = {
        "machine": machine,
        "rounds": rounds,
        "quick": quick,
        "settings": {name: TOOLS[name].settings for name in _tools(results)},
        "targets": [{**asdict(verdict), "met": verdict.met} for verdict in verdicts],
        "raw_bytes": results.raw_bytes,
        "runs": results.records,
    }
    (folder / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    return text


def _machine() -> dict[str, Any]:
    """The machine, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("ray", "pylance", "lancedb", "pyarrow", "numpy")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def _document(results: Results, machine: dict[str, Any], rounds: int, quick: bool) -> Iterator[str]:
    yield "# Side by side with the peers\n"
    yield "Written by `python -m bench`; do not edit.\n"
    if quick:
        yield "**Quick run: tables are 20 times smaller, targets do not apply.**\n"
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    yield (
        f"Machine: {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}. Ours on {packages}. {rounds} rounds, medians (lowest - highest).\n"
    )
    yield "## Tools and settings\n"
    yield from _table(("tool", "settings"), ((name, TOOLS[name].settings) for name in _tools(results)))
    yield "## Targets\n"
    yield from _table(("target", "reached", "limit", ""), _target_rows(results))
    yield "## Times (s)\n"
    yield from _times(results)
    yield "## Phases of our jobs (s, medians)\n"
    yield from _table(("workload", "tool", "phases"), _phase_rows(results))
    yield "## Resume after kill -9 (W6)\n"
    yield from _table(RESUME_COLUMNS, _resume_rows(results))
    yield "## CPU seconds of the whole run\n"
    yield from _matrix(results, "cpu_s", 1)
    yield "## Memory (MB, PSS sum)\n"
    yield from _table(("workload", "tool", "before the job", "peak", "added by the job"), _memory_rows(results))
    yield "## Bytes and versions\n"
    yield from _table(BYTE_COLUMNS, _byte_rows(results))
    yield "## Failed runs\n"
    failed = [record for record in results.records if record["error"]]
    yield from _table(("run", "error"), ((_name(record), record["error"]) for record in failed))
    yield "## Notes\n"
    yield NOTES
    yield from _foreign(results)


def _tools(results: Results) -> list[str]:
    used = {record["tool"] for record in results.records}
    return [name for name in TOOLS if name in used]


def _measured(results: Results) -> list[Workload]:
    used = {record["workload"] for record in results.records}
    return [workload for workload in WORKLOADS if workload.key in used]


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    columns, body = list(columns), [list(row) for row in rows]
    if not body:
        yield "None.\n"
        return
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in body:
        yield f"| {' | '.join(row)} |"
    yield ""


def _target_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for verdict in judge(results):
        reached = "-" if verdict.value is None else f"{verdict.value:.3f} {verdict.unit}"
        yield verdict.title, reached, f"{verdict.limit:.3f} {verdict.unit}", verdict.met


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def _times(results: Results) -> Iterator[str]:
    tools = _tools(results)
    rows = []
    for workload in _measured(results):
        field = "wall_s" if workload.key in ("W6", "W7") else "job_s"
        what = {"W6": ", 2nd process", "W7": ""}.get(workload.key, ", job")
        cells = [_spread(results.values(workload.key, tool, field), 2) for tool in tools]
        rows.append([f"{workload.key}: {workload.title}{what}", *cells])
    yield from _table(("workload", *tools), rows)


def _matrix(results: Results, field: str, digits: int) -> Iterator[str]:
    tools = _tools(results)
    rows = (
        [workload.key, *(_spread(results.values(workload.key, tool, field), digits) for tool in tools)]
        for workload in _measured(results)
    )
    yield from _table(("workload", *tools), rows)


def _phase_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for workload in _measured(results):
        for tool in ("ours", "ours_inline"):
            phases = [record["phases"] for record in results.of(workload.key, tool) if "phases" in record]
            if phases:
                medians = {name: statistics.median(each.get(name, 0.0) for each in phases) for name in phases[0]}
                yield workload.key, tool, ", ".join(f"{name} {seconds:.3f}" for name, seconds in medians.items())


def _resume_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for tool in _tools(results):
        for record in results.of("W6", tool):
            counts = (record[name] for name in ("round", "killed_at", "calls_first", "calls_second", "redone"))
            seconds = f"{record['redone_s_per_worker']:.2f}", f"{record['wall_s']:.1f}"
            yield tool, *(f"{count:,}" for count in counts), *seconds


def _memory_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for workload in _measured(results):
        for tool in _tools(results):
            peak = results.median(workload.key, tool, "pss_mb", memory=True)
            before = results.median(workload.key, tool, "pss_before_mb", memory=True)
            if peak is not None:
                start = ("-", "-") if before is None else (f"{before:.0f}", f"{peak - before:.0f}")
                yield workload.key, tool, start[0], f"{peak:.0f}", start[1]


def _byte_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for workload in _measured(results):
        for tool in _tools(results):
            if workload.kind != "small" and (written := results.median(workload.key, tool, "data_bytes")) is not None:
                everything = results.median(workload.key, tool, "all_bytes")
                versions = results.median(workload.key, tool, "versions")
                share = f"{written / results.raw_bytes[workload.key]:.3f}" if workload.kind == "new" else "-"
                lance = results.median(workload.key, "lance", "data_bytes")
                yield (
                    workload.key,
                    tool,
                    f"{written / 1e6:.2f} MB",
                    share,
                    f"{written / lance:.3f}" if lance else "-",
                    "-" if everything is None else f"{everything / 1e6:.2f} MB",
                    "-" if versions is None else f"{versions:.0f}",
                )


def _foreign(results: Results) -> Iterator[str]:
    long = [record for record in results.records if record.get("wall_s", 0.0) > LONG_S]
    busy = [record for record in long if record["foreign_cores"] > BUSY_CORES]
    if busy:
        names = ", ".join(f"{_name(record)} ({record['foreign_cores']:.2f})" for record in busy)
        yield f"Runs with foreign load: {names}."
    else:
        yield f"No run had more than {BUSY_CORES} cores of foreign load."


def _name(record: Record) -> str:
    turn = "memory" if record["round"] < 0 else f"round {record['round'] + 1}"
    return f"{record['workload']} {record['tool']} {turn}"
