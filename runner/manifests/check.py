"""What cannot work, or may work otherwise, where a function runs on a cluster: a pure comparison, before any job starts."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runner.environments.own_requirements import REQUIREMENTS, SAME_VERSION
from runner.manifests import conda_environment
from runner.manifests.facts import WORKSPACE, Facts
from runner.manifests.facts_script import name_of
from runner.manifests.manifest import Manifest, ManifestKind
from runner.manifests.modules import uploaded
from runner.manifests.requirements import parse, requirement_name

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """Something apart.

    Attributes:
        severity: ``error`` for what cannot work, ``warning`` for what may.
        subject: what it is about: ``python``, ``ray``, a distribution, a module or a variable.
        message: what is here and there, and what to do.
    """

    severity: Severity
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"


def compare(
    client: Facts,
    cluster: Facts,
    manifest: Manifest | None = None,
    imports: Collection[str] = (),
    env_names: Collection[str] = (),
    *,
    optional: Collection[str] = (),
) -> list[Problem]:
    """Problems, errors first.

    Args:
        client: facts of this process, with all of `imports` and `optional` looked for.
        cluster: facts of a worker as the cluster has it, the same looked for; `client` itself for this machine.
        manifest: what workers get in addition. Default: the workspace.
        imports: top-level modules that the functions need; see `runner.manifests.imports.needs_of`.
        env_names: variables of the environment that they read.
        optional: modules that they can do without.
    """
    brought = _Brought(client, manifest)
    found = [
        *_of_versions(client, cluster),
        *_of_own(client, cluster, brought),
        *(problem for module in sorted(imports) for problem in _of_module(module, client, cluster, brought, "error")),
        *(problem for module in sorted(optional) for problem in _of_module(module, client, cluster, brought, "warning")),
        *_of_env(client, cluster, manifest, env_names),
        *_of_site(client, cluster, manifest),
    ]
    return sorted(found, key=lambda problem: problem.severity)  # "error" < "warning"


@dataclass
class _Brought:
    """What a manifest puts on workers, as far as it can be told without installing it.

    Attributes:
        pins: requirements by distribution.
        names: those with all that they need, as far as the client has them installed.
        is_known: whether the client has all of them installed, so that `names` is the whole of it.
    """

    client: Facts
    manifest: Manifest | None
    pins: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    is_known: bool = True

    def __post_init__(self) -> None:
        manifest = self.manifest
        if manifest is None:
            return
        lines = [*manifest.pip, *conda_environment.pip_lines(manifest.conda)]
        self.pins = {name: line for line in lines if (name := requirement_name(line))}
        waiting = [*self.pins, *map(conda_environment.package_name, conda_environment.packages(manifest.conda))]
        while waiting:
            name = waiting.pop()
            if name not in self.names:
                self.names.add(name)
                self.is_known &= name in self.client.distributions
                waiting.extend(self.client.requires.get(name, ()))

    @property
    def is_apart(self) -> bool:
        """Whether nothing of the image is seen, as in a conda environment."""
        return self.manifest is not None and self.manifest.kind is ManifestKind.CONDA

    @property
    def installs(self) -> bool:
        """Whether an installer runs, which gets what the runner itself needs too."""
        return bool(self.names)

    def distributions(self, module: str) -> set[str]:
        """Those that a module may come from."""
        return {*self.client.provided_by.get(module, ()), name_of(module)}

    def has(self, module: str) -> bool:
        """Whether a module gets to workers by it."""
        place, manifest = self.client.modules.get(module), self.manifest
        if self.distributions(module) & self.names:
            return True
        if place == WORKSPACE and (manifest is None or manifest.working_dir):
            return True
        if manifest is None:
            return False
        return module in _module_names(manifest) or (manifest.kind is ManifestKind.SITE and place == "site")


def _of_versions(client: Facts, cluster: Facts) -> Iterator[Problem]:
    own = client.python_minor
    if own != cluster.python_minor:
        message = (
            f"Python {client.python} here and {cluster.python} there: functions do not pass between minor versions; run this with "
            f'Python {cluster.python_minor}, or give the cluster images of {own} (python_version: "{own}")'
        )
        yield Problem("error", "python", message)
    if cluster.ray is None:
        message = f"the `python` that jobs find there (Python {cluster.python}) has no Ray; put the one that has it first on PATH"
        yield Problem("error", "ray", message)
    elif client.ray != cluster.ray:
        message = (
            f"Ray {client.ray} here and {cluster.ray} there, which do not talk to each other; pip install 'ray=={cluster.ray}' "
            f"here, or give the cluster images of Ray {client.ray} (ray_version: {client.ray})"
        )
        yield Problem("error", "ray", message)


def _of_own(client: Facts, cluster: Facts, brought: _Brought) -> Iterator[Problem]:
    """What the runner itself needs of workers. Where it lacks, it is installed with the rest when they start."""
    for name in REQUIREMENTS:
        here, there = client.distributions.get(name), cluster.distributions.get(name)
        pin = brought.pins.get(name)
        if pin and name in SAME_VERSION and here and not parse(pin).specifier.contains(here, prereleases=True):
            message = f"{name} {here} here, and the manifest wants {pin}: workers write files as this client does; drop it there"
            yield Problem("error", name, message)
        elif not brought.installs and (there is None or (name in SAME_VERSION and there != here)):
            message = (
                f"{name} {here} here and {there or 'none'} there: it is installed when workers start, from an index that they "
                "must reach; an image that has it saves that"
            )
            yield Problem("warning", name, message)


def _of_module(module: str, client: Facts, cluster: Facts, brought: _Brought, severity: Severity) -> Iterator[Problem]:
    if brought.has(module):
        return
    if module in cluster.modules and not brought.is_apart:
        yield from _of_package(module, client, cluster)
        return
    if brought.distributions(module) & {*REQUIREMENTS, "ray"}:  # every worker gets them
        return
    lacking = f"the function imports {module}, which workers lack and nothing brings"
    if brought.names and not brought.is_known:  # what else they install is known to the index only
        lacking, severity = f"{lacking}, unless a requirement of the manifest needs it itself", "warning"
    yield Problem(severity, module, f"{lacking}; {_remedy(module, client, brought)}")


def _of_package(module: str, client: Facts, cluster: Facts) -> Iterator[Problem]:
    for name in client.provided_by.get(module, ()):
        here, there = client.distributions.get(name), cluster.distributions.get(name)
        if here and there and here != there:
            message = f"the function imports {module}: {name} {here} here and {there} there; pin {name}=={here} in the manifest"
            yield Problem("warning", name, message)


def _remedy(module: str, client: Facts, brought: _Brought) -> str:
    place = client.modules.get(module)
    if place == WORKSPACE:
        return "it is in the workspace, which this manifest leaves here: working_dir: true sends it"
    if place not in (None, "site", "stdlib"):
        return f"it is at {place} here: add that to py_modules"
    where = "conda" if brought.is_apart else "pip"
    names = client.provided_by.get(module)
    if names:
        wanted = ", ".join(f"{name}=={client.distributions[name]}" for name in names if name in client.distributions)
        return f"add {wanted} to {where} of the manifest"
    near = difflib.get_close_matches(module, brought.names, n=1)
    return f"add the package that has it to {where} of the manifest" + (f"; is it in {near[0]}?" if near else "")


def _of_env(client: Facts, cluster: Facts, manifest: Manifest | None, env_names: Collection[str]) -> Iterator[Problem]:
    from infra.secrets_in_specs import variables

    plain = manifest.plain() if manifest else {}
    for name in sorted(set(variables(plain)) - client.env):
        yield Problem("error", name, f"the manifest refers to ${{env:{name}}}, and {name} is not set here; export it")
    given = plain.get("env_vars", {})
    for name in sorted((set(env_names) & client.env) - cluster.env - set(given)):
        remedy = f"give it to workers by env_vars of the manifest: {{{name}: ${{env:{name}}}}}"
        yield Problem("warning", name, f"the function reads {name}, which is set here and not there; {remedy}")


def _of_site(client: Facts, cluster: Facts, manifest: Manifest | None) -> Iterator[Problem]:
    if manifest is not None and manifest.kind is ManifestKind.SITE and client.platform != cluster.platform:
        yield Problem(
            "error",
            "platform",
            f"the manifest sends the site-packages of {client.platform} to workers of {cluster.platform}, where what is built does "
            "not run; take a manifest of kind pip, uv or conda",
        )


def _module_names(manifest: Manifest) -> set[str]:
    """The modules that py_modules are imported as; a wheel's are taken from its name."""
    names = [found[0] if (found := uploaded(module)) else Path(module).name for module in manifest.py_modules]
    return {name.partition("-")[0] if name.endswith(".whl") else name.removesuffix(".py") for name in names}
