"""`diff`: everything that a folder, or a database, declares against everything that Kubernetes has."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.common import AsJson, StorageOptions, exit_codes, open_database
from runner.cli.trees import Folder, Stacks

if TYPE_CHECKING:
    from infra.drift import Drift, State

WORDS: dict[State, str] = {
    "differs": "differs",
    "missing": "declared, and not there",
    "undeclared": "there, and not declared",
    "unknown": "cannot be told",
    "same": "as declared",
    "other": "not looked at",
}


def diff(
    folder: Folder = Path("."),
    database: Annotated[
        str | None, typer.Option("--db", metavar="DB", help="In place of FOLDER: what a database defines and has provisioned.")
    ] = None,
    stack: Stacks = None,
    every: Annotated[bool, typer.Option("--all", help="List what is as declared, too.")] = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Compare everything declared with everything that is there.

    A line for each resource that differs, and one for each of its fields: what is there -> what is declared. Clusters that a
    database defines need not run. Exit codes: 0 no difference, 1 differences, 2 something given is wrong or Kubernetes cannot be
    asked.
    """
    with exit_codes():
        found = _of_database(database, storage_option) if database else _of_folder(folder, stack or ())
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(drift) for drift in found]))
        else:
            _print(found, every)
        if any(drift.state == "unknown" for drift in found):
            raise typer.Exit(2)
        if any(drift.differs for drift in found):
            raise typer.Exit(1)


def _of_folder(folder: Path, names: Sequence[str]) -> list[Drift]:
    from stacks.comparing import drift_of
    from stacks.project import read_project

    return drift_of(read_project(folder, names))


def _of_database(database: str, storage_option: list[str] | None) -> list[Drift]:
    from runner.provision.comparing import drift_of_definitions

    return drift_of_definitions(open_database(database, storage_option))


def _print(found: list[Drift], every: bool) -> None:
    shown = [drift for drift in found if drift.differs or drift.state == "unknown" or every]
    names = [f"{drift.kind} {drift.namespace}/{drift.name}" if drift.namespace else f"{drift.kind} {drift.name}" for drift in shown]
    width = max(map(len, names), default=0)
    for drift, name in zip(shown, names, strict=True):
        note = f" ({drift.note})" if drift.note else ""
        typer.echo(f"{name:<{width}}  {WORDS[drift.state]}{note}")
        for change in drift.changes:
            typer.echo(f"  {change}")
    counts = Counter(drift.state for drift in found)
    typer.echo(", ".join(f"{counts[state]} {words}" for state, words in WORDS.items() if counts[state]) or "nothing is declared")
