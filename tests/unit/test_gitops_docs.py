"""docs/gitops.md and docs/policy.md say what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from infra.policy import Policy
from infra.policy_rules import Violation
from runner.cli import app
from tests.unit.pulumi_mocks import run_program

DOCS = Path(__file__).parents[2] / "docs"
TEXTS = {name: (DOCS / name).read_text() for name in ("gitops.md", "policy.md")}
README = (DOCS.parent / "README.md").read_text()


def commands() -> list[list[str]]:
    """Every command of ours in the pages' blocks and in the README's part on them, as words."""
    blocks = re.findall(r"```console\n(.*?)```", "".join(TEXTS.values()), flags=re.S)
    blocks.append(re.findall(r"### From git, under rules\n\n```console\n(.*?)```", README, flags=re.S)[0])
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    ours = [line.partition(" # ")[0].partition("|")[0] for line in lines if line.startswith("$ python -m runner ")]
    return [shlex.split(line.removeprefix("$ python -m runner ")) for line in ours]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one(words: list[str]) -> None:
    """Its options and arguments are read as they are written; nothing runs."""
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]  # type: ignore[attr-defined]
    command.make_context("infill", list(words))


def test_there_are_commands_of_each_kind() -> None:
    assert {words[0] for words in commands()} == {"policy", "diff", "render", "gitops"}
    assert len(commands()) >= 12


def test_the_policy_of_the_page_and_every_rule_in_its_table() -> None:
    policy = Policy.parse(yaml.safe_load(re.findall(r"```yaml\n(.*?)```", TEXTS["policy.md"], flags=re.S)[0]))
    assert policy.model_fields_set == set(Policy.model_fields)
    table = re.search(r"\| rule \|.*\n\| ---.*\n((?:\|.*\n)+)", TEXTS["policy.md"])
    assert table is not None
    assert {name for row in table[1].splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])} == set(Policy.model_fields)


def test_the_refusal_of_the_page_is_one() -> None:
    said = re.findall(r"```text\n(.*?)\n```", TEXTS["policy.md"], flags=re.S)[0]
    refused = Violation("max_replicas", "worker_groups.gpu.max_replicas", 100, "is more than 50")
    assert said == f"cluster 'images': {refused}"


def test_the_program_of_the_page_declares_a_stack() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXTS["gitops.md"], flags=re.S)
    ran = run_program(lambda: exec(block, {})).ok()
    assert ran["Stack clusters"].inputs["spec"]["repoDir"] == "ray"
