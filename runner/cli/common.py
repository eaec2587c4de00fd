"""What all commands share: the arguments that mean the same everywhere, opening the database, exit codes."""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from runner.connection import Connection

Database = Annotated[str, typer.Argument(metavar="DB", help="Database: a folder, or an s3://, gs:// or az:// address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be removed and remove nothing.")]
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


def age(text: str) -> dt.timedelta:
    """The age that ``--older-than`` says.

    Raises:
        BadInput: it is none.
    """
    from runner.errors import BadInput

    found = re.fullmatch(r"(\d+)([dhm])", text.strip())
    if not found:
        raise BadInput(f"--older-than {text!r} is no age; write 30d, 12h or 45m")
    unit = {"d": "days", "h": "hours", "m": "minutes"}[found[2]]
    return dt.timedelta(**{unit: int(found[1])})


def print_collected(found: Sequence[tuple[str, str, str]], things: str, *, dry_run: bool, size: int | None = None) -> None:
    """What a clean-up did, or would do: a line for each thing, and how many on standard error.

    Args:
        found: of each its name, why it goes, and the problem where it stays after all.
        things: what they are, in the plural.
        size: bytes of all of them, where they have any.
    """
    from runner.packages.package import size_text

    did = "would remove" if dry_run else "removed"
    for name, why, problem in found:
        typer.echo(f"could not remove {name}: {problem}" if problem else f"{did} {name}: {why}")
    gone = sum(not problem for *_, problem in found)
    if not found:
        typer.echo("nothing to remove", err=True)
    else:
        typer.echo(f"{did} {gone} {things}" + ("" if size is None else f", {size_text(size)}"), err=True)


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
