"""What the commands on definitions share, of clusters and of manifests: reading files of them, printing them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

if TYPE_CHECKING:
    from runner.connection import Connection
    from runner.definitions import Definition

Revision = Annotated[int | None, typer.Option(metavar="N", help="An earlier revision. Default: the latest.")]
History = Annotated[bool, typer.Option("--history", help="List the revisions instead, the latest first.")]


class Named(Protocol):
    """A cluster or a manifest."""

    @property
    def name(self) -> str: ...

    def warnings(self) -> list[str]: ...


Read = TypeVar("Read", bound=Named)


def print_list(connection: Connection, kind: str, default_kind: str, as_json: bool) -> None:
    """All that is defined now, one a line.

    Args:
        kind: as `runner.definitions.Definitions` takes it.
        default_kind: the spec's kind where it says none.
    """
    from runner.definitions import Definitions

    found = Definitions(connection.store, kind).current()
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in found]))
        return
    width = max((len(each.name) for each in found), default=0)
    for each in found:
        own_kind = str((each.spec or {}).get("kind", default_kind))
        typer.echo(f"{each.name:<{width}}  {own_kind:<8}  {_origin(each)}")


def print_one(connection: Connection, kind: str, name: str, revision: int | None, history: bool, as_json: bool) -> None:
    """A definition as YAML, or the revisions that it has."""
    from infra.files import to_yaml
    from runner.definitions import Definitions

    definitions = Definitions(connection.store, kind)
    if history:
        _print_history(definitions.history(name), as_json)
        return
    found = definitions.get(name, revision)
    typer.echo(json.dumps(found.to_dict()) if as_json else to_yaml(found.spec), nl=as_json)


def print_defined(made: list[Definition], as_json: bool) -> None:
    """What defining has changed."""
    if as_json:
        typer.echo(json.dumps([{"name": each.name, "revision": each.revision, "new": each.is_new} for each in made]))
        return
    for each in made:
        what = f"defined {each.name}" if each.is_new else f"{each.name} is unchanged"
        typer.echo(f"{what} (revision {each.revision})")


def print_warnings(what: str, given: Named) -> None:
    for problem in given.warnings():
        typer.echo(f"warning: {what} {given.name!r}: {problem}", err=True)


def read_all(what: str, files: list[Path], read: Callable[[Path], Read]) -> list[Read]:
    """What files hold, or every problem of every file."""
    from infra.errors import BadSpec
    from runner.errors import BadInput

    found: dict[str, Read] = {}
    problems = []
    for file in files:
        try:
            one = read(file)
        except (BadSpec, BadInput) as exc:
            problems.append(str(exc))
            continue
        if one.name in found:
            problems.append(f"{file}: name: {one.name!r} is that of an earlier file; a {what} is known by its name")
        found[one.name] = one
    if problems:
        raise BadSpec("\n".join(problems))
    return list(found.values())


def _print_history(revisions: list[Definition], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in revisions]))
        return
    for each in revisions:
        typer.echo(_origin(each) + ("  deleted" if each.spec is None else ""))


def _origin(definition: Definition) -> str:
    return f"revision {definition.revision}  {definition.defined_at}  {definition.author}"
