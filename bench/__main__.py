"""`python -m bench`: build the peers' environments, generate the tables, run all in alternation, write the results."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from bench import envs, report, runs, tables
from bench.targets import Record, Results
from bench.workloads import QUICK_DIVISOR, TOOLS, WORKLOADS, Workload

HERE = Path(__file__).parent
WORK = HERE / ".work"


def main() -> None:
    options = _options()
    tools = options.tools or [name for name, tool in TOOLS.items() if not tool.optional]
    workloads = [workload for workload in WORKLOADS if _chosen(workload, options.only)]
    divisor = QUICK_DIVISOR if options.quick else 1
    for peer in sorted({env for name in tools if (env := TOOLS[name].env)}):
        envs.python_of(peer)
    started = time.monotonic()
    records: list[Record] = []
    raw_bytes: dict[str, int] = {}
    for workload in workloads:
        place = _place(workload, divisor)
        raw_bytes[workload.key] = tables.expected_values(place.expected).nbytes
        for run in _turns(workload, tools, options.rounds, place):
            records.append(runs.execute(run))
            _tell(records[-1], time.monotonic() - started)
    partial = options.only or options.tools or options.quick
    folder = WORK if partial else HERE
    print("\n" + report.write(folder, Results(records, raw_bytes), options.rounds, options.quick))
    print(f"written to {folder.relative_to(HERE.parent)}/RESULTS.md and results.json")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every workload (3)")
    parser.add_argument("--only", type=_names, help="workloads, for example W1,W5 (all)")
    parser.add_argument("--tools", type=_tool_names, help=f"of {','.join(TOOLS)}")
    parser.add_argument("--quick", action="store_true", help=f"tables {QUICK_DIVISOR} times smaller")
    parser.epilog = "A run with --only, --tools or --quick writes to bench/.work instead of bench."
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return text.split(",")


def _tool_names(text: str) -> list[str]:
    names = _names(text)
    if unknown := sorted(set(names) - TOOLS.keys()):
        raise argparse.ArgumentTypeError(f"no such tool: {', '.join(unknown)}")
    return names


def _chosen(workload: Workload, only: list[str] | None) -> bool:
    """Whether a workload is asked for; W5 means W5a and W5b, W12 likewise."""
    return only is None or workload.key in only or workload.key.rstrip("ab") in only


def _place(workload: Workload, divisor: int) -> runs.Place:
    spec = workload.table.scaled(divisor)
    return runs.Place(tables.generate(spec, WORK / "tables"), spec.rows, WORK / "run")


def _turns(workload: Workload, tools: list[str], rounds: int, place: runs.Place) -> Iterator[runs.Run]:
    """All runs of a workload: the tools take turns in every round; the round that samples PSS comes first."""
    for turn in range(-1 if workload.memory else 0, rounds):
        for tool in tools:
            if tool in workload.tools and not (tool in workload.once and turn > 0):
                yield runs.Run(workload, tool, turn, place)


def _tell(record: Record, elapsed: float) -> None:
    turn = "memory" if record["round"] < 0 else f"round {record['round'] + 1}"
    shown = ("job_s", "wall_s", "cpu_s", "pss_mb", "redone")
    figures = [f"{name} {record[name]:.2f}" for name in shown if record.get(name) is not None]
    outcome = ", ".join(figures) if record["error"] is None else f"FAILED: {record['error']}"
    print(f"{elapsed:6.0f} s  {record['workload']:4}{record['tool']:12} {turn:8} {outcome}", flush=True)


if __name__ == "__main__":
    main()
