"""`Environment`: what workers run in, as `runtime_env` makes it and `worker_setup` puts it in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INSTALLERS = ("pip", "uv", "conda")
"""Ray takes one of them."""


@dataclass(frozen=True)
class Environment:
    """What workers run in.

    Attributes:
        runtime_env: for Ray, whose dashboard shows it to whoever reaches it. Nothing secret is in it.
        secrets: variables that are not to be shown; ``${env:NAME}`` in them stands for a variable of the client's.
        expanded: variables of the nodes that pip, uv and conda put into addresses while they install.
        workspace: whether a workspace goes, and `folder` which; default: that of the working directory.
        modules: py_modules, as a manifest has them.
        include, exclude: patterns for the workspace.
        site: whether the client's site-packages go.
        zip_folder: where packages are kept as zip files, and `delete_zips` whether they go once uploaded.
    """

    runtime_env: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    expanded: tuple[str, ...] = ()
    workspace: bool = True
    folder: str | None = None
    modules: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    site: bool = False
    zip_folder: Path | None = None
    delete_zips: bool = True

    @property
    def installer(self) -> str | None:
        """Which of Ray's installers it uses."""
        return next((name for name in INSTALLERS if name in self.runtime_env), None)
