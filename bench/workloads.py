"""The workloads, the tools, and which tool does which workload."""

from __future__ import annotations

from dataclasses import dataclass

from bench.envs import pinned
from bench.tables import TableSpec

TEXT = TableSpec("text", 1_000_000, 8)
FULL = TableSpec("full", 1_000_000, 8)
VECTOR = TableSpec("vector", 200_000, 8)
BLOB = TableSpec("blob", 100_000, 10)
NUMBER = TableSpec("number", 200_000, 8)
FEW = TableSpec("number", 4_000, 8)
ENCODED = TableSpec("encoded", 20_000, 8)
MANY_FRAGMENTS = TableSpec("text", 1_000_000, 1_000)
ONE_FRAGMENT = TableSpec("text", 1_000_000, 1)
QUICK_DIVISOR = 20
MISSING_SHARE = 100


@dataclass(frozen=True)
class Tool:
    """A tool with its settings: `env` names the environment (None: this one), `mode` goes to its driver."""

    name: str
    driver: str
    env: str | None
    mode: str
    settings: str
    optional: bool = False


def _tools() -> tuple[Tool, ...]:
    lance, ray = f"pylance {pinned('lance', 'pylance')}", pinned("lance_ray", "ray")
    return (
        Tool("ours", "ours", None, "local", "Infill, `context(cluster='local')`, defaults"),
        Tool("ours_inline", "ours", None, "inline", "Infill, `context(cluster='inline')`, defaults"),
        Tool(
            "lance",
            "lance",
            "lance",
            "",
            f"{lance} in one process, `add_columns(batch_udf)`, 8192 rows a batch; W5 filter and `update_columns`; "
            "W6 `checkpoint_file`, 1024 rows a batch",
        ),
        Tool(
            "lance_ray",
            "lance_ray",
            "lance_ray",
            "",
            f"lance-ray {pinned('lance_ray', 'lance-ray')} (ray {ray}), `add_columns`, 8192 rows a batch, "
            "one pool process a core, Ray up before the job",
        ),
        Tool(
            "geneva",
            "geneva",
            "geneva",
            "tuned",
            f"geneva {pinned('geneva', 'geneva')} (ray {pinned('geneva', 'ray')}), `concurrency` = cores, "
            "`num_cpus=0.5`, in a local Ray context that has done a tiny backfill before",
        ),
        Tool(
            "geneva_default",
            "geneva",
            "geneva",
            "default",
            f"geneva {pinned('geneva', 'geneva')}, defaults, in the same context",
            optional=True,
        ),
    )


TOOLS = {tool.name: tool for tool in _tools()}


@dataclass(frozen=True)
class Workload:
    """One workload. `kind` is the driver's; `warm` runs a tiny job in the same context before the measured one.

    `memory` adds one round in which PSS is sampled; `once` names the tools that run in one round only.
    """

    key: str
    title: str
    table: TableSpec
    function: str
    tools: tuple[str, ...]
    kind: str = "new"
    warm: bool = True
    memory: bool = False
    once: tuple[str, ...] = ()

    def missing(self, rows: int) -> int:
        """Rows to do in W5."""
        return rows // MISSING_SHARE


OURS = ("ours",)
MAIN = ("ours", "lance", "lance_ray", "geneva", "geneva_default")
WITH_INLINE = ("ours", "ours_inline", "lance", "lance_ray", "geneva", "geneva_default")
PARTIAL = ("ours", "ours_inline", "lance", "geneva")

WORKLOADS = (
    Workload("W1", "1M strings of ~40 characters, Python `len`", TEXT, "text_len", WITH_INLINE, memory=True),
    Workload("W2", "the same, `pc.utf8_length`", TEXT, "text_len_arrow", MAIN),
    Workload("W3", "200k vectors of 256 float32, norm", VECTOR, "vector_norm", MAIN),
    Workload("W4", "100k values of 10 KiB, SHA-256", BLOB, "digest", WITH_INLINE, memory=True),
    Workload("W5a", "10k new rows of 1M: one appended fragment", FULL, "text_len", PARTIAL, kind="append"),
    Workload("W5b", "10k new rows of 1M: NULLs scattered over 8 fragments", FULL, "text_len", PARTIAL, kind="scatter"),
    Workload(
        "W6",
        "kill -9 in the middle of 200k slow rows, then again",
        NUMBER,
        "slow",
        ("ours", "lance", "geneva"),
        kind="resume",
        warm=False,
        once=("lance", "geneva"),
    ),
    Workload("W7", "cold: process start to exit, W1's job", TEXT, "text_len", WITH_INLINE, warm=False),
    Workload("W8", "second job in a warm context, 1,000 rows", TEXT, "text_len_arrow", WITH_INLINE, kind="small"),
    Workload("W9", "4,000 calls of a coroutine, 400 a second at most, to a service that takes 50 ms", FEW, "asked", OURS),
    Workload("W10", "1M strings, a class with 5 s of `setup`, `pc.utf8_length`", TEXT, "loaded", OURS),
    Workload("W11", "20k values of 10 KiB in a blob column, SHA-256", ENCODED, "digest", OURS, memory=True),
    Workload("W12a", "W1 with 1,000 fragments", MANY_FRAGMENTS, "text_len", ("ours", "lance")),
    Workload("W12b", "W1 with one fragment", ONE_FRAGMENT, "text_len", ("ours", "lance")),
)
