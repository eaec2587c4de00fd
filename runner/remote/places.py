"""The clusters that a context may run on: one that comes and goes with it, one that stands, one behind Ray Client."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import shlex
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from runner import console
from runner.environments.own_requirements import PINS, pins
from runner.environments.workspace import OURS, OURS_IN
from runner.errors import BadInput, RunnerError
from runner.remote.remote_driver import OPTIONS

if TYPE_CHECKING:
    from infra.spec import KubeRayClusterSpec
    from runner.provision.life import Provisioned
    from runner.remote.ray_jobs import RayJobs
    from runner.store import Store

HEAD_ANSWERS_SECONDS = 60.0
LOOK_SECONDS = 3.0
CLIENT_NAMESPACE = "infill"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""What a node of each of Kubernetes' architectures calls its machine."""
_QUOTED = ", last available logs (truncated to 20,000 chars):"
_SERVER_HUNG = "Starting Ray client server failed"  # the server that Ray forks for each client hangs now and then


class Place(Protocol):
    """Where the drivers of a context's jobs run.

    Attributes:
        name: for people and for the job records.
        python, platform: the workers', as far as it is known before they are there.
        is_on_demand: whether it is deleted after use.
        most_gpus: of any of its workers; None where that is not known before they are there.
    """

    name: str
    python: str
    platform: str
    is_on_demand: bool
    most_gpus: int | None

    def open(self) -> str:
        """Connect, or make it; where it is reached, in words."""

    def submit(self, job_id: str, database: str, options: Mapping[str, str]) -> None:
        """Start the driver of a job, unless it was started.

        Args:
            options: storage options that are no secret.
        """

    def look(self, job_id: str) -> str | None:
        """Why the driver of a job has ended; None where it runs, or nobody answers."""

    def stop(self, job_id: str) -> None:
        """End the driver of a job, which was asked before."""

    def renewal(self) -> dict[str, Any] | None:
        """What a driver needs to keep an on-demand cluster alive."""

    def close(self, *, keep: bool) -> bool:
        """Let go of it; whether it was deleted."""

    def removal(self) -> str:
        """The command that removes it; empty where it is not ours to remove."""


class Standing:
    """A cluster that others run, by the Jobs API of its dashboard.

    Args:
        target: the spec of a cluster, or its dashboard's address.
        ray_cluster: name of the RayCluster, where it is another than the spec's.
    """

    is_on_demand = False

    def __init__(self, name: str, target: Any, ray_cluster: str | None = None) -> None:
        self.name = name
        self.python = getattr(target, "python_version", None) or f"{sys.version_info.major}.{sys.version_info.minor}"
        self.platform = platform_of(target)
        self.most_gpus = max((group.gpus for group in getattr(target, "worker_groups", ())), default=None)
        self._target, self._ray_cluster = target, ray_cluster
        self._jobs: RayJobs | None = None

    def open(self) -> str:
        from runner.remote.address import open_dashboard

        return self._connect(open_dashboard(self._target, name=self._ray_cluster))

    def submit(self, job_id: str, database: str, options: Mapping[str, str]) -> None:
        jobs = self._connected()
        source = jobs.upload({name: OURS_IN / name for name in OURS})
        env_vars = {OPTIONS: json.dumps(dict(options)), PINS: " ".join(pins()), "PYTHONUNBUFFERED": "1"}
        jobs.submit(
            f"python -m runner.remote.remote_driver {shlex.quote(database)} {job_id}",
            submission_id=job_id,
            runtime_env={"py_modules": [source], "env_vars": env_vars},
        )

    def look(self, job_id: str) -> str | None:
        try:
            found = self._jobs.find(job_id) if self._jobs else None
        except RunnerError:  # nobody answers: that is no answer
            return None
        if self._jobs is None:
            return None
        if found is None:
            return f"cluster {self.name} knows of it no more"
        return f"as Ray says: {found.status}, {_in_a_line(found.message or '')}" if found.has_ended else None

    def stop(self, job_id: str) -> None:
        self._connected().stop(job_id)

    def renewal(self) -> dict[str, Any] | None:
        return None

    def close(self, *, keep: bool) -> bool:
        if self._jobs is not None:
            self._jobs.dashboard.close()
            self._jobs = None
        return False

    def removal(self) -> str:
        return ""

    def _connect(self, dashboard: Any) -> str:
        from runner.remote.ray_jobs import RayJobs

        self._jobs = RayJobs(dashboard)
        dashboard.check_ray()
        dashboard.check_python()
        return str(dashboard.where)

    def _connected(self) -> RayJobs:
        assert self._jobs is not None
        return self._jobs


def platform_of(target: Any) -> str:
    """The platform of a cluster's workers: as its spec has it, else like this machine; of several the one that differs."""
    own = platform.machine().lower()
    machines = {_MACHINES[group.arch] for group in getattr(target, "worker_groups", ())}
    return f"linux-{next(iter(sorted(machines - {own})), own)}"


def _in_a_line(message: str) -> str:
    """What Ray says of a job that failed: its own words, and of the logs that it quotes the last line."""
    words, _, logs = message.partition(_QUOTED)
    lines = [" ".join(line.split()) for line in logs.splitlines() if line.strip()]
    return f"{words}: {lines[-1]}" if lines else " ".join(words.split())


class OnDemand(Standing):
    """A cluster on Kubernetes that comes with the first context and goes with the last.

    Args:
        time_to_live: seconds that it outlives its last client and job by; None for ever.
        keep: never delete it.
        secrets: storage options for its drivers.
    """

    is_on_demand = True

    def __init__(
        self,
        store: Store,
        spec: KubeRayClusterSpec,
        *,
        reuse: Any,
        time_to_live: float | None,
        keep: bool,
        secrets: Mapping[str, str],
    ) -> None:
        super().__init__(spec.name, spec)
        if store.is_local:
            raise BadInput(
                f"the database {store.uri} is a folder of this machine, which the pods of cluster {spec.name!r} cannot read; "
                "put it on s3://, gs:// or az://"
            )
        self._store, self._spec = store, spec
        self._reuse, self._time_to_live, self._keep = reuse, time_to_live, keep
        self._secrets = secrets
        self._provisioned: Provisioned | None = None

    def open(self) -> str:
        from runner.provision.life import up
        from runner.remote.address import open_dashboard

        self._provisioned = up(
            self._store,
            self._spec,
            reuse=self._reuse,
            time_to_live=self._time_to_live,
            keep=self._keep,
            secrets=self._secrets,
            workers=False,  # work begins with the head; they join as they come
            say=console.say,
        )
        try:
            where = self._connect(open_dashboard(self._provisioned.spec, wait=HEAD_ANSWERS_SECONDS))
        except BaseException:
            self.close(keep=self._keep)
            raise
        threading.Thread(target=self._tell_of_stuck_pods, args=(self._provisioned,), name="runner-pods", daemon=True).start()
        return where

    def _tell_of_stuck_pods(self, provisioned: Provisioned) -> None:
        """Say why workers do not come, once for each reason, for as long as the context is open."""
        from infra.body import ray_cluster_body
        from infra.errors import InfraError
        from infra.kube import Kubernetes, run
        from infra.readiness import Seen
        from infra.wait import problem_of

        body, seen, told = ray_cluster_body(provisioned.spec), Seen(), {""}
        while self._provisioned is provisioned:
            with contextlib.suppress(InfraError):
                kube = run(Kubernetes.connect(provisioned.access))
                problem = run(problem_of(kube, provisioned.spec, body, seen)) or ""
                if problem not in told and self._provisioned is provisioned:
                    told.add(problem)
                    console.say(f"cluster {self.name}: {problem}")
            time.sleep(LOOK_SECONDS)

    def renewal(self) -> dict[str, Any] | None:
        found = self._provisioned
        return {"cluster": found.name, "seconds": found.time_to_live} if found and found.time_to_live else None

    def close(self, *, keep: bool) -> bool:
        from runner.provision.life import release

        super().close(keep=keep)
        provisioned, self._provisioned = self._provisioned, None
        return release(provisioned, keep=keep, for_ever=keep and self._keep, say=console.say) if provisioned else False

    def removal(self) -> str:
        return f"python -m runner clusters down {self._store.uri} {self.name}"


class RayClient:
    """A cluster that only Ray Client reaches, ``ray://host:10001``: the driver of a job is a detached actor on its head.

    Args:
        secrets: storage options for its drivers.
        variables: values of this environment that the workers' refers to. Both go as arguments, which Ray does not show.
    """

    is_on_demand = False
    most_gpus: int | None = None

    def __init__(self, name: str, address: str, secrets: Mapping[str, str], variables: Mapping[str, str]) -> None:
        self.name = name
        self.python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.platform = f"linux-{platform.machine().lower()}"
        self._address = address
        self._secrets, self._variables = dict(secrets), dict(variables)
        self._drivers: dict[str, Any] = {}
        self._joined = False

    def open(self) -> str:
        _send_token()
        import ray

        if ray.is_initialized():
            raise BadInput(f"cluster {self.name!r} is reached by Ray Client, and Ray is initialised in this process already")
        for attempt in (1, 2):
            try:
                ray.init(self._address, namespace=CLIENT_NAMESPACE, logging_level=logging.ERROR, log_to_driver=False)
                break
            except (ConnectionError, RuntimeError, ValueError) as exc:
                if attempt == 1 and _SERVER_HUNG in str(exc):
                    continue
                raise RunnerError(
                    f"no Ray at {self._address} lets us in: {' '.join(str(exc).split())}; where that Ray asks for a token, set "
                    "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                ) from exc
        self._joined = True
        return f"{self._address}, by Ray Client"

    def submit(self, job_id: str, database: str, options: Mapping[str, str]) -> None:
        import ray

        from runner.backfill import ray_worker
        from runner.environments.worker_setup import own_source

        ray.cloudpickle.register_pickle_by_value(ray_worker)  # type: ignore[no-untyped-call]
        placed = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}, "name": f"driver-{job_id}"}
        actor: Any = ray.remote(ray_worker.RayDriver).options(**placed, lifetime="detached").remote(own_source(), pins())
        self._drivers[job_id] = actor.drive.remote(database, {**options, **self._secrets}, job_id, self._variables)

    def look(self, job_id: str) -> str | None:
        import ray

        done, _ = ray.wait([self._drivers[job_id]], timeout=0)
        if not done:
            return None
        try:
            ray.get(done)
        except ray.exceptions.RayError as exc:
            return " ".join(str(exc).split())
        return "having returned"

    def stop(self, job_id: str) -> None:
        import ray

        ray.kill(ray.get_actor(f"driver-{job_id}", namespace=CLIENT_NAMESPACE))

    def renewal(self) -> dict[str, Any] | None:
        return None

    def close(self, *, keep: bool) -> bool:
        import ray

        if self._joined:
            ray.shutdown()
            self._joined = False
        return False

    def removal(self) -> str:
        return ""


def _send_token() -> None:
    """Have Ray Client send the token that this machine has. `ray.init` of other addresses looks for one by itself."""
    from runner.remote.address import OwnToken

    if "RAY_AUTH_MODE" not in os.environ and OwnToken().read():
        os.environ["RAY_AUTH_MODE"] = "token"
