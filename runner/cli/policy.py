"""The commands on policies: the rules that hold for the clusters of a folder, or of a database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.common import AsJson, Database, StorageOptions, exit_codes, open_database
from runner.cli.definitions import History, Revision, print_one

policy_app = typer.Typer(
    help="Policies: what the clusters of a folder, or of a database, may be.", no_args_is_help=True, rich_markup_mode=None
)


@policy_app.command("check")
def check_folder(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Pulumi project, or folder of clusters' files.")] = Path("."),
) -> None:
    """Check every cluster of a folder against the policy.yaml beside it. Kubernetes is not asked."""
    with exit_codes():
        from infra.errors import BadSpec
        from infra.policy import FILE
        from stacks.project import read_project

        project = read_project(folder)
        if project.policy is None:
            raise BadSpec(f"there is no {FILE} beside {project.clusters}")
        typer.echo(f"{len(project.declared)} clusters keep to {project.clusters.parent / FILE}")


@policy_app.command("set")
def set_policy(
    database: Database,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file of a policy.")],
    storage_option: StorageOptions = None,
) -> None:
    """Set the policy of a database: what may be defined in it, and provisioned from it."""
    with exit_codes():
        from infra.policy import read_policy

        made = open_database(database, storage_option).set_policy(read_policy(file))
        typer.echo(f"{'set' if made.is_new else 'unchanged'} (revision {made.revision})")


@policy_app.command("show")
def show_policy(
    database: Database,
    revision: Revision = None,
    history: History = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Print the policy of a database as YAML."""
    from runner.policies import KIND, NAME

    with exit_codes():
        print_one(open_database(database, storage_option), KIND, NAME, revision, history, as_json)


@policy_app.command("delete")
def delete_policy(database: Database, storage_option: StorageOptions = None) -> None:
    """Have no policy any more. Its revisions stay in the history."""
    with exit_codes():
        deleted = open_database(database, storage_option).set_policy(None)
        typer.echo(f"deleted (revision {deleted.revision})")


@policy_app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a policy's file, for editors and CI."""
    from infra.policy import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
