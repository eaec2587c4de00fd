"""The README's Python blocks on real Ray, in their order, as the script they say they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from infra.spec import KubeRayClusterSpec, parse_spec
from tests.docs.blocks import ROOT, blocks_of

BLOCKS = blocks_of((ROOT / "README.md").read_text())

CHECKS = """
rows = images.to_arrow().to_pylist()
assert [row["filename_len"] for row in rows] == [7, 12], rows
assert [(row["stem"], row["suffix"]) for row in rows] == [("cat", "png"), ("elephant", "jpg")], rows
assert images.to_lancedb().count_rows() == 2
assert [row["words"] for row in rows] == ["seven", "12"], rows
assert db.get_cluster("images") == cluster
assert db.get_manifest("dev") == manifest
print("checked")
"""


def test_the_python_blocks_of_the_readme_run_and_compute_what_they_say(tmp_path: Path) -> None:
    blocks = [block.text for block in BLOCKS if block.language == "python"]
    assert len(blocks) == 4
    script = tmp_path / "script.py"
    script.write_text("\n".join(blocks) + CHECKS)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rows done     2" in done.stdout
    assert done.stdout.rstrip().endswith("checked")
    assert "using Ray on this machine" in done.stderr


def test_the_cluster_file_of_the_readme_is_the_cluster_of_its_script() -> None:
    file = parse_spec(yaml.safe_load(next(block.text for block in BLOCKS if block.language == "yaml")))
    assert isinstance(file, KubeRayClusterSpec)
    assert [(group.name, group.cpus, group.gpus, group.max_replicas) for group in file.worker_groups] == [
        ("cpu", "8", 0, 20),
        ("gpu", "8", 1, 8),
    ]
