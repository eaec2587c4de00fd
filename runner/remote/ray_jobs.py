"""`RayJobs`: Ray's Jobs API as its dashboard serves it, over any `runner.remote.dashboard.Dashboard` and without Ray itself."""

from __future__ import annotations

import dataclasses
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runner.errors import BadInput, RunnerError
from runner.remote.dashboard import ClusterUnreachable, Dashboard, RayVersion, message_of

if TYPE_CHECKING:
    import httpx

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")

_SUBMISSION_ID = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]{0,199}")
_PAUSES = (0.1, 0.2, 0.5, 1.0)
_NO_AGENT = "No available agent to submit job"  # of a head that has started a moment ago
_LOGS_SHARE = 0.1
"""Part of the time that goes into reading logs, which come whole each time."""
_UPLOAD_TIMEOUT = 300.0
_SEEN_SECONDS = 4.0


class UnknownJob(BadInput):
    """The cluster knows no such job. A head that starts anew without GCS fault tolerance has forgotten all it had."""


class JobExists(BadInput):
    """A job of that submission id was there before."""


class WaitEnded(RunnerError, TimeoutError):
    """A job has not ended in the time given."""


class RequestFailed(RunnerError):
    """Ray could not do what it was asked."""


@dataclass(frozen=True)
class JobDetails:
    """A job as Ray knows it.

    Attributes:
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        submission_id: of a job that was submitted; None for one that a driver began by itself.
        message: why it is in that status.
        error_type: Ray's word for what failed, where it was not the entrypoint itself.
        start_time, end_time: Unix time in ms; None where it has not come.
        driver_exit_code: of the entrypoint, None where it did not end by itself.
    """

    status: str
    entrypoint: str
    submission_id: str | None = None
    type: str = "SUBMISSION"
    job_id: str | None = None
    message: str | None = None
    error_type: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    runtime_env: dict[str, Any] = field(default_factory=dict)
    driver_node_id: str | None = None
    driver_exit_code: int | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> JobDetails:
        """From Ray's JSON; fields that are not here are left out."""
        known = {each.name for each in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in answer.items() if name in known and value is not None})

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class RayJobs:
    """The jobs of one cluster.

    Every method raises what `Dashboard.request` does, and `RequestFailed` where Ray fails.
    """

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard = dashboard

    def version(self) -> RayVersion:
        """What runs there; raises `runner.remote.dashboard.NotRay`."""
        return self.dashboard.version()

    def upload(self, contents: Mapping[str, str | Path]) -> str:
        """Upload files and folders as a package, unless it is there; its URI for a ``runtime_env``.

        Args:
            contents: as `runner.remote.ray_packages.ray_package` takes them. For py_modules by the names they are imported under,
                ``{"my_package": folder}``; for a working_dir ``{"": folder}``.

        The cluster keeps a package while a job uses it, and 10 minutes for a job to begin to.

        Raises:
            BadInput: nothing to upload, or more than 100 MB.
        """
        from runner.remote.ray_packages import ray_package

        package = ray_package(contents)
        path = f"/api/packages/gcs/{package.name}"
        if self._package_is_there(path):
            return package.uri
        self._ok(self.dashboard.request("PUT", path, content=package.zipped(), timeout=_UPLOAD_TIMEOUT), f"upload {package.name}")
        if not self._package_is_there(path):  # which keeps it for the job to come
            raise RequestFailed(f"{self.dashboard.where} took the package {package.name} and does not have it")
        return package.uri

    def submit(
        self,
        entrypoint: str,
        *,
        submission_id: str | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: Mapping[str, float] | None = None,
    ) -> str:
        """Start a job; its submission id. It is started once, even where the connection drops.

        Args:
            entrypoint: a command of the shell. Without any resources it runs on the head.
            submission_id: default: one of our own.
            runtime_env: Ray's; whoever reaches the dashboard can read it. Folders of this machine go by `upload`.
            metadata: texts to texts.

        Raises:
            JobExists: the submission id is taken.
            BadInput: Ray does not take the request.
        """
        if not entrypoint.strip():
            raise BadInput("entrypoint is empty; give a command, such as 'python -m my_package'")
        job = submission_id or f"infill-{uuid.uuid4().hex[:16]}"
        if not _SUBMISSION_ID.fullmatch(job):
            raise BadInput(f"submission_id={job[:120]!r}: it names a file of Ray's: at most 200 letters, digits, '-', '_' and '.'")
        request = {
            "entrypoint": entrypoint,
            "submission_id": job,
            "runtime_env": dict(runtime_env or {}),
            "metadata": dict(metadata or {}),
            "entrypoint_num_cpus": entrypoint_num_cpus,
            "entrypoint_num_gpus": entrypoint_num_gpus,
            "entrypoint_memory": entrypoint_memory,
            "entrypoint_resources": dict(entrypoint_resources) if entrypoint_resources else None,
        }
        end = time.monotonic() + self.dashboard.patience
        while True:
            try:
                response = self.dashboard.request("POST", "/api/jobs/", json=request, patience=0.0)
            except ClusterUnreachable:
                if self._is_ours(job, entrypoint):  # it came through, its answer did not
                    return job
                if time.monotonic() > end:
                    raise
                continue
            if _NO_AGENT in response.text and time.monotonic() < end:
                time.sleep(_PAUSES[-1])
                continue
            if f"{job} already exists" in response.text:
                raise JobExists(f"a job {job} is on {self.dashboard.where} already; give another submission_id")
            return str(self._ok(response, f"submit {job}").json()["submission_id"])

    def info(self, job: str) -> JobDetails:
        """What Ray knows of a job.

        Raises:
            UnknownJob: nothing.
        """
        return JobDetails.of(self._of_job("GET", job).json())

    def find(self, job: str) -> JobDetails | None:
        """The same, None where Ray knows of none."""
        try:
            return self.info(job)
        except UnknownJob:
            return None

    def list(self) -> Sequence[JobDetails]:
        """All jobs that the cluster remembers, submitted or not."""
        return [JobDetails.of(each) for each in self._ok(self.dashboard.request("GET", "/api/jobs/"), "list jobs").json()]

    def stop(self, job: str) -> bool:
        """Ask a job to end: SIGTERM, and SIGKILL seconds later. Whether it ran.

        Raises:
            UnknownJob: the cluster knows of none.
        """
        return bool(self._of_job("POST", job, "/stop").json()["stopped"])

    def delete(self, job: str) -> bool:
        """Forget a job that has ended; its logs stay. Waits until Ray has seen its end, seconds later.

        Raises:
            UnknownJob: the cluster knows of none.
            BadInput: it has not ended.
        """
        response = self._of_job("GET", job)
        details = JobDetails.of(response.json())
        if not details.has_ended:
            raise BadInput(f"job {job} is {details.status}; stop it first")
        # Ray's own look at a job, once a second, brings one back as FAILED that is not there any more.
        time.sleep(min(_SEEN_SECONDS, max(0.0, (details.end_time or 0) / 1000 + _SEEN_SECONDS - _date(response))))
        try:
            return bool(self._of_job("DELETE", job).json()["deleted"])
        except UnknownJob:  # the first answer was lost on its way
            return True

    def logs(self, job: str) -> str:
        """All that a job has printed so far, on stdout and stderr, and Ray about it.

        Raises:
            UnknownJob: the cluster knows of none.
            RequestFailed: the node that ran it is gone, and the logs with it.
        """
        return str(self._of_job("GET", job, "/logs").json()["logs"])

    def follow(self, job: str, offset: int = 0) -> Iterator[str]:
        """What a job prints, as it comes, until it has ended. Asks again and again, which every proxy lets through.

        Args:
            offset: characters that are known already. The sum of the lengths of what came is the next one.

        Raises:
            as `logs`.
        """
        pause = _PAUSES[0]
        while True:
            ended = self.info(job).has_ended  # before its logs are read: afterwards nothing is added
            begun = time.monotonic()
            text = self.logs(job)
            took = time.monotonic() - begun
            if len(text) < offset:  # another job under the same name, after the head started anew
                offset = 0
            if text[offset:]:
                yield text[offset:]
                pause = _PAUSES[0]
            offset = len(text)
            if ended:
                return
            time.sleep(max(pause, took / _LOGS_SHARE))
            pause = min(2 * pause, _PAUSES[-1])

    def wait(self, job: str, timeout: float | None = None) -> JobDetails:
        """Wait until a job has ended.

        Args:
            timeout: seconds. Default: as long as it takes.

        Raises:
            WaitEnded: it has not ended by then, and goes on.
            UnknownJob: the cluster knows of none.
        """
        if timeout is not None and timeout < 0:
            raise BadInput(f"timeout={timeout!r} must be at least 0")
        end = None if timeout is None else time.monotonic() + timeout
        tries = 0
        while not (details := self.info(job)).has_ended:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise WaitEnded(f"job {job} is {details.status} after {timeout:g} s: {details.message or 'no reason given'}")
            pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
            time.sleep(pause if left is None else min(pause, left))
            tries += 1
        return details

    def _is_ours(self, job: str, entrypoint: str) -> bool:
        found = self.find(job)
        return found is not None and found.entrypoint == entrypoint

    def _package_is_there(self, path: str) -> bool:
        response = self.dashboard.request("GET", path)
        return response.status_code != 404 and self._ok(response, f"find {path}").is_success

    def _of_job(self, method: str, job: str, rest: str = "") -> httpx.Response:
        response = self.dashboard.request(method, f"/api/jobs/{quote(job, safe='')}{rest}")
        if response.status_code == 404:
            raise UnknownJob(f"{self.dashboard.where} knows no job {job}; a head that starts anew has forgotten the jobs it had")
        return self._ok(response, f"{method} {job}{rest}")

    def _ok(self, response: httpx.Response, what: str) -> httpx.Response:
        if response.is_success:
            return response
        text = f"{self.dashboard.where} answered {response.status_code} to {what}: {message_of(response)}"
        raise BadInput(text) if response.status_code in (400, 413, 422) else RequestFailed(text)


def _date(response: httpx.Response) -> float:
    """When an answer was given, by the clock of who gave it, as Unix time; 0 where it does not say."""
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return 0.0
