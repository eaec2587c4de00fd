"""What all commands share: the arguments that mean the same everywhere, opening the database, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from runner.connection import Connection

Database = Annotated[str, typer.Argument(metavar="DB", help="Database: a folder, or an s3://, gs:// or az:// address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
StorageOptions = Annotated[
    list[str] | None, typer.Option("--storage-option", metavar="KEY=VALUE", help="As Lance takes them; may be repeated.")
]


def open_database(database: str, storage_options: list[str] | None) -> Connection:
    """The connection that the arguments of a command name."""
    from runner.connection import connect
    from runner.errors import BadInput

    pairs = [option.partition("=") for option in storage_options or []]
    wrong = [key for key, equals, _ in pairs if not equals]
    if wrong:
        raise BadInput(f"--storage-option {wrong[0]!r} is not of the form KEY=VALUE")
    return connect(database, storage_options={key: value for key, _, value in pairs})


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors made for people become one message and the documented exit code; anything else is a bug and keeps its traceback."""
    from infra.errors import BadSpec, InfraError
    from runner import errors

    busy = (errors.ColumnBusy, errors.CommitConflict)
    try:
        yield
    except errors.RunnerError as exc:
        typer.echo(f"runner: {exc}", err=True)
        first = next((error for error in getattr(exc, "errors", ())), None)
        if first is not None:
            typer.echo(first.traceback, err=True)
        code = 2 if isinstance(exc, errors.BadInput) else 3 if isinstance(exc, busy) else 1
        raise SystemExit(code) from None
    except InfraError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise SystemExit(2 if isinstance(exc, BadSpec) else 1) from None
    except KeyboardInterrupt:
        typer.echo("runner: interrupted; finished work is kept and the next backfill takes it up", err=True)
        sys.exit(130)
