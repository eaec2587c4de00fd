"""The commands on the clusters that a database knows by name, and on the files that describe them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from runner.cli import costs
from runner.cli.cluster_specs import DefinedIn, Source, kuberay, read_or_get
from runner.cli.common import AsJson, Database, StorageOptions, exit_codes, open_database
from runner.cli.definitions import History, Revision, print_defined, print_list, print_one, print_warnings, read_all
from runner.cli.provision import add_commands, print_provisioned

if TYPE_CHECKING:
    from infra.live import LiveCluster
    from infra.spec import KubeRayClusterSpec
    from runner.connection import Connection

clusters_app = typer.Typer(
    help="Ray clusters: their definitions, files of them, and those provisioned on demand.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
add_commands(clusters_app)
clusters_app.command("cost")(costs.cost)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a defined cluster.")]
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML files, a cluster each.")]


@clusters_app.command("list")
def list_clusters(database: Database, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """List the clusters that are defined, and name those that are provisioned."""
    from runner.definitions import CLUSTERS

    with exit_codes():
        connection = open_database(database, storage_option)
        print_list(connection, CLUSTERS, "kuberay", as_json)
        if not as_json:
            print_provisioned(connection.store)


@clusters_app.command("init")
def init_project(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; made if it is missing.")] = Path("."),
) -> None:
    """Write a Pulumi project with a cluster for each of the stacks dev, gpu and eks, and an example of a price table."""
    with exit_codes():
        from stacks.new import write_project

        for file in write_project(folder):
            typer.echo(file)


@clusters_app.command("show")
def show_cluster(
    database: Database,
    name: Name,
    revision: Revision = None,
    history: History = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Print the definition of a cluster as YAML."""
    from runner.definitions import CLUSTERS

    with exit_codes():
        print_one(open_database(database, storage_option), CLUSTERS, name, revision, history, as_json)


@clusters_app.command("define")
def define_clusters(database: Database, files: Files, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """Define clusters by YAML files, or change their definitions. One wrong file, and none is defined."""
    with exit_codes():
        from infra.files import read_spec
        from infra.policy import check_policy

        connection = open_database(database, storage_option)
        specs = read_all("cluster", files, read_spec)
        check_policy(connection.policy(), *specs)
        for spec in specs:
            print_warnings("cluster", spec)
        print_defined([connection.define_cluster(spec.name, spec) for spec in specs], as_json)


@clusters_app.command("delete")
def delete_cluster(database: Database, name: Name, storage_option: StorageOptions = None) -> None:
    """Define a cluster no more. One that runs goes on running; its definitions stay in the history."""
    with exit_codes():
        connection = open_database(database, storage_option)
        note = _note_on_running(connection, name)
        deleted = connection.delete_cluster(name)
        typer.echo(f"deleted {name} (revision {deleted.revision})")
        if note:
            typer.echo(note, err=True)


@clusters_app.command("diff")
def diff_cluster(database: Database, name: Name, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """Compare a definition with the cluster that runs.

    A line for each field that differs: what runs -> what is defined. Exit code 1 where there is one, or nothing runs.
    """
    import dataclasses

    with exit_codes():
        spec = kuberay(open_database(database, storage_option).get_cluster(name), "can be compared with what runs")
        live = _find(spec)
        changes = _differences(spec, live) if live else []
        if as_json:
            typer.echo(json.dumps({"running": live is not None, "changes": [dataclasses.asdict(change) for change in changes]}))
        elif live is None:
            typer.echo("not running")
        else:
            typer.echo("\n".join(map(str, changes)) or "no differences")
        if changes or live is None:
            raise typer.Exit(1)


@clusters_app.command("schema")
def print_schema(
    of: Annotated[Literal["cluster", "backfill", "prices"], typer.Argument(help="Whose file.")] = "cluster",
) -> None:
    """Print the JSON Schema of a cluster's or a declared backfill's file, or of a price table, for editors and CI."""
    from infra import backfill_files, files, prices

    schemas = {"cluster": files.json_schema, "backfill": backfill_files.json_schema, "prices": prices.json_schema}
    typer.echo(json.dumps(schemas[of](), indent=2))


@clusters_app.command("render")
def render_cluster(
    source: Source,
    database: DefinedIn = None,
    storage_option: StorageOptions = None,
) -> None:
    """Print the Kubernetes resources that a cluster becomes, as YAML."""
    from infra.body import resources
    from infra.files import to_yaml

    with exit_codes():
        spec = kuberay(read_or_get(source, database, storage_option), "becomes resources of Kubernetes")
        print_warnings("cluster", spec)
        _print_secret_left_out(spec)
        typer.echo("---\n".join(map(to_yaml, resources(spec))), nl=False)


def _print_secret_left_out(spec: KubeRayClusterSpec) -> None:
    from infra.body import env_secret_name, env_secret_variables

    variables = env_secret_variables(spec)
    if variables:
        secret = f"{env_secret_name(spec)} of namespace {spec.namespace}"
        typer.echo(f"not printed: the Secret {secret}; `pulumi up` makes it of {', '.join(variables)}", err=True)


# -- the cluster that runs


def _find(spec: KubeRayClusterSpec) -> LiveCluster | None:
    from infra.errors import InfraError

    try:
        from infra import live

        return live.find(spec)
    except ImportError as exc:
        raise InfraError(f"Kubernetes cannot be asked: {exc}; pip install 'infill[kubernetes]'") from exc


def _differences(spec: KubeRayClusterSpec, live: LiveCluster) -> list[Any]:
    from infra.live import differences

    return list(differences(spec, live))


def _note_on_running(connection: Connection, name: str) -> str | None:
    """What to say of the cluster when its definition goes: that it runs, and how it is removed; None where there is nothing."""
    from infra.errors import InfraError
    from infra.spec import KubeRayClusterSpec
    from runner.store import first_line

    try:
        spec = connection.get_cluster(name)
        if not isinstance(spec, KubeRayClusterSpec):
            return None
        live = _find(spec)
    except InfraError as exc:
        return f"whether it runs is not known: {first_line(exc)}"
    if live is None:
        return None
    return f"it still runs in namespace {live.namespace} ({live.state}); {_removal(connection, spec, live)}"


def _removal(connection: Connection, spec: KubeRayClusterSpec, live: LiveCluster) -> str:
    from infra import labels
    from runner.provision.record import Records

    stack = live.body["metadata"].get("labels", {}).get(labels.STACK)
    provisioned = Records(connection.store).get(spec.name)
    if provisioned and provisioned.label == stack:
        return f"`python -m runner clusters down {connection.uri} {spec.name}` removes it"
    if stack:
        return f"`pulumi destroy` of the stack that made it, {stack}, removes it"
    where = [f"--{option}={value}" for option in ("kubeconfig", "context") if (value := getattr(spec, option))]
    command = ["kubectl", *where, "delete", "raycluster", "-n", live.namespace, live.name]
    return f"`{shlex.join(command)}` removes it"
