"""The options that say where a backfill runs, for every command that runs one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

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


@dataclass(frozen=True)
class Place:
    """What those options say."""

    cluster: str
    manifest: str | None
    stack: str | None
    on_exit: str
    wait_timeout: float | None

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
            stack=self.stack,
        )
