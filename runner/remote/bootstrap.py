"""Brings Infill to the head of a cluster whose image has Ray alone, and runs a declared backfill there.

Its text travels in a variable of the job, and is run by ``python -c``: the standard library, and obstore, which it installs. What
it fetches has its own hash as its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from typing import Any


def main(where: dict[str, Any]) -> None:
    """Run the driver with the source that `where` leads to, and end as it ends.

    Args:
        where: ``url`` of the folder, ``name`` of the zip file in it, and obstore's ``config`` and ``client_options``;
            ``prefix``: what the variables with secret options begin with; ``obstore``: the requirement.
    """
    base = os.path.join(tempfile.gettempdir(), f"infill-{os.getuid()}")
    os.makedirs(base, mode=0o700, exist_ok=True)
    if os.stat(base).st_uid != os.getuid():
        raise SystemExit(f"infill: {base} is not a folder of this user; remove it, or set TMPDIR to a folder that is")
    source = os.path.join(base, where["name"])
    with open(f"{source}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several drivers may start at once; the lock ends with the process
        if not os.path.isdir(source):
            half = tempfile.mkdtemp(dir=base)
            with zipfile.ZipFile(fetched(where, base)) as archive:
                archive.extractall(half)
            os.rename(half, source)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    os.execv(sys.executable, [sys.executable, "-m", "runner.remote.declared_driver"])


def fetched(where: dict[str, Any], base: str) -> io.BytesIO:
    """The zip file, as a file."""
    try:
        import obstore
    except ImportError:
        folder = os.path.join(base, "bootstrap")
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", folder, where["obstore"]], check=True)
        sys.path.insert(0, folder)
        import obstore
    from obstore.store import from_url

    secret = {n[len(where["prefix"]) :].lower(): v for n, v in os.environ.items() if n.startswith(where["prefix"])}
    config: Any = {**where["config"], **secret}
    store = from_url(where["url"], config=config or None, client_options=where["client_options"] or None)
    data = bytes(obstore.get(store, where["name"]).bytes())
    if hashlib.sha256(data).hexdigest() != where["name"].partition(".")[0]:
        raise SystemExit(f"infill: {where['url']}/{where['name']} is not what was uploaded; declare the backfill again")
    return io.BytesIO(data)


if __name__ == "__main__":
    main(json.loads(os.environ["INFILL_SOURCE"]))
