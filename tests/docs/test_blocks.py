"""Every code block of README.md and docs/ is run, or parsed where it needs a cluster, or says why not."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, blocks_of
from tests.docs.commands import commands_of, parse
from tests.docs.page import Page


@pytest.mark.parametrize("path", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_block_of(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: Counter[tuple[str, str]]) -> None:
    monkeypatch.chdir(tmp_path)
    checked.update(Page(path, tmp_path).check())


@pytest.mark.parametrize(
    "text", ["backfill db t x --no-such-option", "clusters no-such-command", "plan", "backfill d t x --limit a"]
)
def test_a_command_that_there_is_not_is_refused(text: str) -> None:
    (command,) = commands_of(f"$ python -m runner {text}")
    with pytest.raises(Exception, match=r"(?i)no such|missing|valid integer"):
        parse(command.arguments or [])


@pytest.mark.parametrize(
    ("block", "what"),
    [
        ("```python\nassert 1 == 2\n```", "AssertionError"),
        ("```python\nimages.backfill('filename_len', no_such=1)\n```", "TypeError"),
        ("```python\nwith db.context(cluster='nobody'):\n    pass\n```", "no cluster 'nobody'"),
        ("```yaml\nname: x\nworker_groups: [{cpu: 8}]\n```", "unknown key 'cpu'; did you mean 'cpus'"),
        ('```yaml title="manifests/x.yaml"\nname: x\npips: [a]\n```', "unknown key 'pips'; did you mean 'pip'"),
        ('```yaml title="Pulumi.dev.yaml"\nconfig: {"infill:operators": true}\n```', "did you mean 'operator'"),
        ("```console\n$ python -m runner jobs list data/db\nnothing at all\n```", ""),
        ("```console\n$ python -m runner plan data/db nobody x\n```", "exit code 2"),
        ("```console\n$ make nothing\n```", ""),
        ("```console\n$ frobnicate\n```", "none of the programs"),
        ("```rust\nfn main() {}\n```", "nothing checks a block of 'rust'"),
        ("    indented\n", "nothing checks a block of ''"),
        ("Prose with `python -m runner jobs no-such` in it.", "(?i)no such command"),
    ],
)
def test_a_wrong_block_is_found(block: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{block}")
    with pytest.raises(Exception) as failed:  # noqa: PT011 - each kind of block has errors of its own
        list(Page(page, tmp_path).check())
    assert re.search(what, f"{failed.type.__name__}: {failed.value}"), failed.value


def test_an_excuse_is_that_of_the_block_after_it_only() -> None:
    text = "<!-- not run: it has no end -->\n\n```rust\nloop {}\n```\n\n```rust\n```\n"
    assert [(block.line, block.excuse) for block in blocks_of(text)] == [(4, "it has no end"), (8, None)]
