"""A Ray of two nodes: a head that runs no work, and a worker node. So a driver that joins it is on no worker's machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_MAIN = """
import sys
from ray.cluster_utils import Cluster

ports = {"dashboard_agent_listen_port": 0, "metrics_export_port": 0}  # two nodes, and other Rays, on one machine
head = {"num_cpus": 0, "include_dashboard": sys.argv[1] == "dashboard", "dashboard_port": int(sys.argv[2]), **ports}
head |= {"ray_client_server_port": int(sys.argv[3])} if sys.argv[1] == "dashboard" else {}
cluster = Cluster(initialize_head=True, head_node_args=head)
cluster.add_node(num_cpus=int(sys.argv[4]), **ports)
cluster.wait_for_nodes()
print(cluster.address, cluster.head_node.get_session_dir_path(), cluster.head_node.webui_url or "-", flush=True)
for line in sys.stdin:
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=int(sys.argv[4]), **ports)
    print("replaced", flush=True)
cluster.shutdown()
"""


@dataclass(frozen=True)
class RayCluster:
    """A Ray that runs.

    Attributes:
        address: for RAY_ADDRESS.
        session: the folder of its session: logs, environments.
        dashboard: ``host:port``, ``-`` without one; `client`: address for Ray Client, which there is beside it.
    """

    address: str
    session: Path
    dashboard: str
    client: str
    process: subprocess.Popen[str] = field(repr=False)

    def replace_node(self) -> None:
        """Kill the worker node with all that runs on it, and add another one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("replace\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "replaced\n"

    def environments(self, installer: str) -> set[str]:
        """The environments that Ray has made with pip or uv, by hash."""
        return {path.name for path in self.session.glob(f"runtime_resources*/{installer}/*") if path.is_dir()}


@contextmanager
def two_nodes(
    folder: Path, *, dashboard: bool = False, cpus: int = 2, env: Mapping[str, str] | None = None
) -> Iterator[RayCluster]:
    """Start one in a process of its own; it ends with the block, or with this process.

    Args:
        cpus: of the worker node.
        env: variables of Ray's processes, besides this one's.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"  # jobs begin with `python`
    client = str(_free_port())
    temporary = tempfile.mkdtemp(prefix="rc-", dir="/tmp")  # short, for Ray's sockets; jobs join the last Ray that started in it
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, "dashboard" if dashboard else "none", str(_free_port()), client, str(cpus)],
        cwd=folder,
        env={**inherited, "RAY_TMPDIR": temporary, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address, session, url = process.stdout.readline().split()
        yield RayCluster(address, Path(session), url, f"ray://127.0.0.1:{client}", process)
    finally:
        process.stdin.close()
        process.wait(60)
        shutil.rmtree(temporary, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
