"""The options that say where a backfill runs, for every command that runs one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from runner.connection import Connection
    from runner.context import Context

Cluster = Annotated[
    str,
    typer.Option(
        metavar="CLUSTER",
        help="inline (this process), local (Ray on this machine), a defined cluster, http(s)://host:8265 or ray://host:10001.",
    ),
]
Manifest = Annotated[str | None, typer.Option(metavar="NAME", help="Defined manifest, the environment of workers.")]
Stack = Annotated[
    str | None, typer.Option(metavar="STACK", help="In place of --cluster: the Pulumi stack of a standing one, dev or dev/images.")
]
OnExit = Annotated[
    str, typer.Option(metavar="MODE", help="What becomes of a provisioned cluster: delete, retain_on_failure or retain.")
]
WaitTimeout = Annotated[float | None, typer.Option(metavar="SECONDS", help="Longest wait for jobs on a cluster.")]
Reuse = Annotated[
    Literal["match", "always", "never"], typer.Option(help="Where a cluster of that name runs: join the same spec, any, or none.")
]
TimeToLive = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Kubernetes deletes a provisioned cluster then, unless a client or a job renews it. Default: 1800; with retain none.",
    ),
]


@dataclass(frozen=True)
class Place:
    """What those options say."""

    cluster: str
    manifest: str | None
    stack: str | None
    on_exit: str
    wait_timeout: float | None
    reuse: Literal["match", "always", "never"]
    time_to_live: float | None

    @property
    def is_default(self) -> bool:
        return self.cluster == "local" and self.manifest is None and self.stack is None

    def open(self, connection: Connection) -> Context:
        """The context that they mean, not entered yet."""
        return connection.context(
            self.cluster,
            self.manifest,
            on_exit=self.on_exit,  # type: ignore[arg-type]
            wait_timeout=self.wait_timeout,
            reuse=self.reuse,
            time_to_live=self.time_to_live,
            stack=self.stack,
        )
