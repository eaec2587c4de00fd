"""docs/functions.md says what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from runner.backfill import coroutines, isolated, retries, timeouts

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "functions.md").read_text()
WORDS = " ".join(TEXT.split())


@pytest.mark.parametrize(
    "said",
    [
        f"between 1 and 2 times `timeout` and {timeouts.GRACE_SECONDS:g} s",
        f"More than {isolated.MAX_KILLING_ROWS} such rows",
        f"wait {retries.FIRST_WAIT_S:g} s, {retries.FIRST_WAIT_S * 2:g} s, {retries.FIRST_WAIT_S * 4:g} s ... at most "
        f"{retries.LONGEST_WAIT_S:g} s",
    ],
)
def test_the_figures_are_those_of_the_code(said: str) -> None:
    assert said in WORDS


def test_ten_minutes_are_the_longest_wait_for_a_service() -> None:
    assert "up to ten minutes" in WORDS
    assert retries.LONGEST_RETRY_AFTER_S == 600


def test_the_default_concurrency_is_the_readme_s() -> None:
    assert f"| `concurrency`, `rate_limit` | {coroutines.DEFAULT_CONCURRENCY}, none |" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, flags=re.S))
def test_the_python_blocks_use_options_that_there_are(block: str) -> None:
    from runner.functions import udf

    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "udf":
            assert {keyword.arg for keyword in node.keywords} <= set(udf.__kwdefaults__ or {})


def test_the_links_of_the_readme_lead_to_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in TEXT.splitlines() if line[:1] == "#"
    }
    linked = set(re.findall(r"docs/functions\.md#([\w-]+)", (ROOT / "README.md").read_text()))
    assert linked <= headings
    assert {"coroutines-and-services", "functions-that-misbehave"} <= linked
