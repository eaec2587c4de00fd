"""`Facts`: what functions find where they run, here or on a cluster's workers."""

from __future__ import annotations

import contextlib
import inspect
import json
import shlex
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import BadInput, RunnerError
from runner.manifests import facts_script

if TYPE_CHECKING:
    from runner.remote.ray_jobs import JobDetails, RayJobs

WAIT_SECONDS = 120.0
WORKSPACE = "workspace"


class NoFacts(RunnerError):
    """A cluster did not tell what its workers have."""


@dataclass(frozen=True)
class Facts:
    """What a Python finds around it.

    Attributes:
        python: its version, ``3.11.9``.
        platform: such as ``linux-x86_64``.
        ray: version of Ray, None without it.
        distributions: versions of what is installed, by canonical name.
        requires: the distributions that each of those needs, without extras.
        env: names of the environment's variables; never their values.
        modules: where each of the modules asked for is imported from: ``stdlib``, ``site`` (site-packages), ``workspace`` (the
            folder that goes to workers, of the client only), or a path; one that cannot be imported is not in it.
        provided_by: distributions that each of those modules comes from.
    """

    python: str
    platform: str
    ray: str | None = None
    distributions: Mapping[str, str] = field(default_factory=dict)
    requires: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    env: frozenset[str] = frozenset()
    modules: Mapping[str, str] = field(default_factory=dict)
    provided_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def python_minor(self) -> str:
        """``3.11``."""
        return ".".join(self.python.split(".")[:2])

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> Facts:
        """From what `runner.manifests.facts_script` prints."""
        listed = {name: {key: tuple(each) for key, each in plain[name].items()} for name in ("requires", "provided_by")}
        return cls(**{**plain, **listed, "env": frozenset(plain["env"])})


def facts_here(modules: Iterable[str] = ()) -> Facts:
    """Facts of this process.

    Args:
        modules: top-level modules to look for.
    """
    facts = Facts.parse(facts_script.found(sorted(modules)))
    places = {module: WORKSPACE if _in_workspace(place) else place for module, place in facts.modules.items()}
    return Facts(**{**vars(facts), "modules": places})


def facts_command(modules: Iterable[str] = ()) -> str:
    """A shell's command that prints the facts of the ``python`` that it finds."""
    return shlex.join(["python", "-c", inspect.getsource(facts_script), *sorted(modules)])


def facts_of(
    jobs: RayJobs,
    modules: Iterable[str] = (),
    *,
    on_worker: bool = True,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    runtime_env: Mapping[str, Any] | None = None,
    timeout: float = WAIT_SECONDS,
) -> Facts:
    """Facts of a cluster, by a job that tells them. It stays in Ray's list as every job does, as ``infill-facts-...``.

    Args:
        modules: top-level modules to look for.
        on_worker: where there is room for a worker of `num_cpus` and `num_gpus`; else on the head.
        runtime_env: what it runs in. Default: what the nodes have.
        timeout: seconds to wait, for a node to come also.

    Raises:
        NoFacts: no node for a worker in time, or the job failed.
    """
    if on_worker and not (num_cpus > 0 or num_gpus > 0):
        raise BadInput(f"num_cpus={num_cpus!r}: a worker has CPUs or GPUs; without any, the job runs on the head")
    asked = {"entrypoint_num_cpus": num_cpus, "entrypoint_num_gpus": num_gpus or None} if on_worker else {}
    name = f"infill-facts-{uuid.uuid4().hex[:16]}"
    job = jobs.submit(facts_command(modules), submission_id=name, runtime_env=runtime_env, **asked)  # type: ignore[arg-type]
    try:
        details = jobs.wait(job, timeout)
    except TimeoutError as exc:
        _stop(jobs, job)
        room = f"room for {num_cpus:g} CPUs" + (f" and {num_gpus:g} GPUs" if num_gpus else "")
        raise NoFacts(
            f"{jobs.dashboard.where}: no worker told what it has within {timeout:g} s ({exc}); has the cluster a node with {room}, "
            f"or does its autoscaler start one? Job {job} waits for one until Ray gives it up, 15 minutes from its start"
        ) from None
    except BaseException:
        _stop(jobs, job)
        raise
    return _read(jobs, details, job)


def _read(jobs: RayJobs, details: JobDetails, job: str) -> Facts:
    logs = jobs.logs(job)
    line = next((line for line in logs.splitlines() if line.startswith(facts_script.MARK)), None)
    if details.status != "SUCCEEDED" or line is None:
        last = " ".join(logs.split())[-500:]
        raise NoFacts(
            f"{jobs.dashboard.where}: a job that looks at a worker {details.status}: {details.message}; it printed {last!r}"
        )
    return Facts.parse(json.loads(line.removeprefix(facts_script.MARK)))


def _stop(jobs: RayJobs, job: str) -> None:
    """Stop a job of which nothing is to be known any more. One that has no node yet ends when it gets one."""
    with contextlib.suppress(RunnerError):
        jobs.stop(job)


def _in_workspace(place: str) -> bool:
    from runner.environments.workspace import workspace

    try:
        found = workspace()
    except BadInput:
        return False
    roots = [found.root / path for path in (*found.first, *found.paths)]
    path = Path(place)
    return path.is_absolute() and any(path.resolve().is_relative_to(root.resolve()) for root in roots)
