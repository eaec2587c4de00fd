"""One tick of a schedule: makes its RayJob, in a pod of a CronJob. A file of a ConfigMap, with the standard library and no more.

What is over for longer than its history goes; what still runs is spared, ended or run beside, as the policy says.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER = "https://kubernetes.default.svc"
FILES = Path("/etc/infill")
ENDED = ("Complete", "Failed", "ValidationFailed")
TIMEOUT_SECONDS = 30.0


def main(environ: Mapping[str, str] = os.environ, *, account: Path = ACCOUNT, server: str = SERVER, files: Path = FILES) -> int:
    """Make the run of a tick.

    Args:
        environ: BACKFILL, POLICY (Forbid, Replace, Allow), HISTORY_SECONDS, and RUN, the run's name: one tick has one, however
            often it is tried.

    Raises:
        OSError: Kubernetes cannot be reached, or refuses; the CronJob tries again.
    """
    api = _Api(account, server)
    name, run, now = environ["BACKFILL"], environ["RUN"], dt.datetime.now(dt.timezone.utc)  # noqa: UP017 - of any Python
    known = [job for job in api.runs(name) if job["metadata"]["name"] != run]
    old = [job for job in known if _is_ended(job) and _age(job, now) > float(environ["HISTORY_SECONDS"])]
    active = [job for job in known if not _is_ended(job)]
    for job in old + (active if environ["POLICY"] == "Replace" else []):
        api.delete(job)
    if active and environ["POLICY"] == "Forbid":
        print(f"{run} is left out: {', '.join(job['metadata']['name'] for job in active)} still runs")
        return 0
    body = json.loads((files / "rayjob.json").read_text())
    body["metadata"].update(name=run, ownerReferences=[api.owner(name)])
    print(f"{run} {'is made' if api.make(body) else 'was made already'}")
    return 0


def _is_ended(job: Mapping[str, Any]) -> bool:
    return job.get("status", {}).get("jobDeploymentStatus") in ENDED


def _age(job: Mapping[str, Any], now: dt.datetime) -> float:
    """Seconds since it ended; of one that KubeRay refused, since it was made."""
    ended = job["status"].get("endTime") or job["metadata"]["creationTimestamp"]
    return (now - dt.datetime.fromisoformat(ended.replace("Z", "+00:00"))).total_seconds()


class _Api:
    """The API server, with the service account of this pod."""

    def __init__(self, account: Path, server: str) -> None:
        self._account, self._server = account, server
        self._namespace = (account / "namespace").read_text().strip()

    def runs(self, name: str) -> list[dict[str, Any]]:
        return list(self._ask("GET", f"{self._jobs()}?labelSelector=infill/backfill%3D{name}")["items"])

    def delete(self, job: Mapping[str, Any]) -> None:
        try:
            self._ask("DELETE", f"{self._jobs()}/{job['metadata']['name']}")
        except urllib.error.HTTPError as exc:
            if exc.code != 404:
                raise

    def owner(self, name: str) -> dict[str, Any]:
        """A reference to the CronJob, whose removal takes its runs along."""
        cron = self._ask("GET", f"/apis/batch/v1/namespaces/{self._namespace}/cronjobs/{name}")
        return {"apiVersion": "batch/v1", "kind": "CronJob", "name": name, "uid": cron["metadata"]["uid"]}

    def make(self, body: dict[str, Any]) -> bool:
        """Whether it was made; False where it is there."""
        try:
            self._ask("POST", self._jobs(), body)
        except urllib.error.HTTPError as exc:
            if exc.code != 409:
                raise OSError(f"Kubernetes does not take the RayJob: {exc.read().decode(errors='replace')}") from exc
            return False
        return True

    def _jobs(self) -> str:
        return f"/apis/ray.io/v1/namespaces/{self._namespace}/rayjobs"

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        token = (self._account / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self._server + path, data, headers, method=method)
        trusted = ssl.create_default_context(cafile=str(self._account / "ca.crt")) if self._server.startswith("https") else None
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=trusted) as response:
            return dict(json.load(response))


if __name__ == "__main__":
    sys.exit(main())
