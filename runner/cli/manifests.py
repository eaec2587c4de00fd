"""The commands on the manifests that a database knows by name, and on the files that describe them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.check import add_checks, read_checked
from runner.cli.common import AsJson, Database, StorageOptions, exit_codes, open_database
from runner.cli.definitions import History, Revision, print_defined, print_list, print_one, print_warnings, read_all
from runner.cli.images import build_manifest

manifests_app = typer.Typer(
    help="Manifests, the environments of workers: their definitions.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a defined manifest.")]
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML files, a manifest each.")]


@manifests_app.command("list")
def list_manifests(database: Database, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """List the manifests that are defined."""
    from runner.definitions import MANIFESTS

    with exit_codes():
        print_list(open_database(database, storage_option), MANIFESTS, "pip", as_json)


@manifests_app.command("show")
def show_manifest(
    database: Database,
    name: Name,
    revision: Revision = None,
    history: History = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Print the definition of a manifest as YAML."""
    from runner.definitions import MANIFESTS

    with exit_codes():
        print_one(open_database(database, storage_option), MANIFESTS, name, revision, history, as_json)


@manifests_app.command("define")
def define_manifests(database: Database, files: Files, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """Define manifests by YAML files, or change their definitions. One wrong file, and none is defined."""
    with exit_codes():
        connection = open_database(database, storage_option)
        manifests = read_all("manifest", files, read_checked)
        for manifest in manifests:
            print_warnings("manifest", manifest)
        print_defined([connection.define_manifest(each.name, each) for each in manifests], as_json)


@manifests_app.command("delete")
def delete_manifest(database: Database, name: Name, storage_option: StorageOptions = None) -> None:
    """Define a manifest no more. Its definitions stay in the history."""
    with exit_codes():
        deleted = open_database(database, storage_option).delete_manifest(name)
        typer.echo(f"deleted {name} (revision {deleted.revision})")


@manifests_app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a manifest's file, for editors and CI."""
    from runner.manifests.manifest import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


manifests_app.command("build")(build_manifest)
add_checks(manifests_app)
