"""The commands on clusters that are provisioned on demand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runner.cli.common import AsJson, Database, DryRun, StorageOptions, exit_codes, open_database, print_collected

if TYPE_CHECKING:
    from runner.provision.collect import Standing
    from runner.store import Store

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a cluster.")]
Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", metavar="PATH", help="How to reach Kubernetes. Default: as the cluster's spec says.")
]
KubeContext = Annotated[str | None, typer.Option("--context", metavar="NAME", help="Context in the kubeconfig.")]


def add_commands(app: typer.Typer) -> None:
    """Put the commands among the others on clusters."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
    app.command("gc")(gc)


def up(
    database: Database,
    name: Name,
    reuse: Annotated[
        Literal["match", "always", "never"], typer.Option(help="Where one runs: join the same spec, any, or none; never change it.")
    ] = "match",
    time_to_live: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Kubernetes deletes it then, unless a job renews it. Default: never.")
    ] = None,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="Leave one that does not start, to look at it.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Print what would be made, and make nothing.")] = False,
    storage_option: StorageOptions = None,
) -> None:
    """Provision a defined cluster, wait until it serves, and keep it until `clusters down`."""
    with exit_codes():
        from infra.spec import KubeRayClusterSpec
        from runner.errors import BadInput

        connection = open_database(database, storage_option)
        spec = connection.get_cluster(name)
        if not isinstance(spec, KubeRayClusterSpec):
            raise BadInput(f"cluster {name!r} is of kind {spec.kind}; only one of kind kuberay is provisioned")
        from runner.provision import life

        if preview:
            typer.echo(life.preview(connection.store, spec, time_to_live))
            return
        made = life.up(connection.store, spec, reuse=reuse, time_to_live=time_to_live, keep=True, keep_failed=keep_failed, say=_say)
        life.release(made, keep=not made.joined, say=_say)
        typer.echo(f"{name}: {'joined' if made.joined else 'provisioned'} in namespace {made.namespace}")
        _say(f"`python -m runner clusters down {connection.store.uri} {name}` removes it")


def down(
    database: Database,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Although others use it, or jobs run on it.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Ask Kubernetes nothing: it exists no more. Drops what the database knows.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    storage_option: StorageOptions = None,
) -> None:
    """Remove a provisioned cluster, whoever made it, with its Pulumi stack."""
    with exit_codes():
        from runner.provision.removal import down as remove

        store = open_database(database, storage_option).store
        removed = remove(store, name, kubeconfig=kubeconfig, context=context, force=force, forget=forget, say=_say)
        done = "forgotten" if forget else "removed"
        typer.echo(f"{name}: {done}" if removed else f"{name}: not provisioned; nothing to remove")


def status(
    database: Database,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this one.")] = None,
    as_json: AsJson = False,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    storage_option: StorageOptions = None,
) -> None:
    """List the clusters that are provisioned: their state, who uses them, and how long they live."""
    with exit_codes():
        from runner.provision import collect

        store = open_database(database, storage_option).store
        found = collect.status(store, name, kubeconfig=kubeconfig, context=context)
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(standing) for standing in found]))
        else:
            _print_table(found, store)


def gc(
    database: Database,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    storage_option: StorageOptions = None,
) -> None:
    """Remove clusters that killed clients left half made, that have ended, or that the database does not know."""
    with exit_codes():
        from runner.provision import collect

        store = open_database(database, storage_option).store
        found = collect.gc(store, dry_run=dry_run, kubeconfig=kubeconfig, context=context, say=_say)
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(collected) for collected in found]))
        else:
            lines = [(f"cluster {item.name} in namespace {item.namespace}", item.why, item.problem) for item in found]
            print_collected(lines, "clusters", dry_run=dry_run)
        if any(item.problem for item in found):
            raise typer.Exit(1)


def print_provisioned(store: Store) -> None:
    """A line for each provisioned cluster, as the database knows them; Kubernetes is not asked."""
    from runner.provision.record import Records

    for record in Records(store).all():
        typer.echo(f"provisioned: {record.name} in namespace {record.namespace} ({record.state} {record.made})")


def _print_table(found: Sequence[Standing], store: Store) -> None:
    if not found:
        typer.echo("nothing is provisioned")
        return
    rows = [("NAME", "NAMESPACE", "STATE", "ENDS IN", "USED BY", "MADE")]
    for item in found:
        used = ", ".join(item.users) or ("nobody, kept" if item.keep else "nobody")
        rows.append((item.name, item.namespace, item.state, _duration(item), used, item.made or "unknown to the database"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for item in found:
        if item.problem:
            typer.echo(f"{item.name}: {item.problem}", err=True)
    if any(item.is_garbage for item in found):
        typer.echo(f"`python -m runner clusters gc {store.uri}` removes what is left of those that are over", err=True)


def _duration(item: Standing) -> str:
    if item.problem or item.is_garbage:
        return "-"
    if item.seconds_left is None:
        return "never"
    return f"{item.seconds_left:.0f} s" if item.seconds_left < 120 else f"{item.seconds_left / 60:.0f} min"


def _say(text: str) -> None:
    typer.echo(text, err=True)
