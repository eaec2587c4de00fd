"""``backfill --render``: the resources of Kubernetes that would run a backfill, in place of running it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from runner.connection import Connection

Render = Annotated[
    str | None,
    typer.Option(
        metavar="KIND", help="Print YAML for Kubernetes in place of running: rayjob, or with --schedule raycronjob or cronjob."
    ),
]
Schedule = Annotated[str | None, typer.Option(metavar="CRON", help='With --render: "0 3 * * *", in UTC.')]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="With --render: the name. Default: of table and columns.")]

_KINDS = {"rayjob": "RayJob", "raycronjob": "RayCronJob", "cronjob": "CronJob"}


def print_rendered(connection: Connection, kind: str, fields: dict[str, Any], refused: dict[str, Any]) -> None:
    """Print a backfill's resources as YAML. What its runs need is uploaded to the database, as a client would.

    Args:
        fields: of `infra.BackfillSpec`; what is None is left to its default.
        refused: options of the command that a declared backfill has not, by their names.

    Raises:
        BadSpec: another kind, a cluster that is not one of Kubernetes, or what a `BackfillSpec` refuses.
    """
    from infra.backfill_body import own_cluster
    from infra.backfill_files import cluster_of
    from infra.backfill_resources import backfill_resources
    from infra.backfill_spec import BackfillSpec
    from infra.body import env_secret_name, env_secret_variables
    from infra.files import to_yaml
    from runner.declared import prepare

    _check(kind, fields, refused)
    given = {key: value for key, value in fields.items() if value not in (None, False, {})}
    spec = BackfillSpec.parse({**given, "name": fields["name"] or _default_name(fields)}, "--render")
    declared = {found.name: found for found in connection.list_clusters()}
    cluster, driver = prepare(spec, cluster_of(spec, declared), Path.cwd(), send=True)
    made = _KINDS[kind] if spec.schedule else "CronJob"
    typer.echo("---\n".join(map(to_yaml, backfill_resources(spec, cluster, driver, made))), nl=False)  # type: ignore[arg-type]
    own = own_cluster(spec, cluster)
    if variables := env_secret_variables(own):
        secret = f"{env_secret_name(own)} of namespace {own.namespace}"
        typer.echo(f"not printed: the Secret {secret}; `pulumi up` makes it of {', '.join(variables)}", err=True)


def _check(kind: str, fields: dict[str, Any], refused: dict[str, Any]) -> None:
    from infra.errors import BadSpec

    if kind not in _KINDS:
        raise BadSpec(f"--render {kind!r} is none of {', '.join(_KINDS)}")
    if (kind == "rayjob") == bool(fields["schedule"]):
        raise BadSpec("--render: a rayjob runs once; give --schedule with raycronjob and cronjob, and only with these")
    wrong = [name for name, value in refused.items() if value]
    if wrong:
        raise BadSpec(f"--render: {wrong[0]} is for a backfill that a client runs; leave it out")


def _default_name(fields: dict[str, Any]) -> str:
    from infra.backfill_spec import LONGEST_NAME

    text = re.sub("[^a-z0-9]+", "-", "-".join([fields["table"], *fields["columns"]]).lower())
    return text.lstrip("-0123456789")[:LONGEST_NAME].strip("-") or "backfill"
