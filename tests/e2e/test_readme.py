"""The README's Python blocks, run in their order as the script they say they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from infra.spec import KubeRayClusterSpec, parse_spec

README = Path(__file__).resolve().parents[2] / "README.md"

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
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert len(blocks) == 4
    script = tmp_path / "script.py"
    script.write_text("\n".join(blocks) + CHECKS)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rows done     2" in done.stdout
    assert done.stdout.rstrip().endswith("checked")
    assert "using Ray on this machine" in done.stderr


def test_the_cluster_file_of_the_readme_is_the_cluster_of_its_script() -> None:
    file = parse_spec(yaml.safe_load(re.findall(r"```yaml\n(.*?)```", README.read_text(), flags=re.S)[0]))
    assert isinstance(file, KubeRayClusterSpec)
    assert [(group.name, group.cpus, group.gpus, group.max_replicas) for group in file.worker_groups] == [
        ("cpu", "8", 0, 20),
        ("gpu", "8", 1, 8),
    ]


def test_every_option_the_readme_names_exists() -> None:
    from runner.functions import udf

    named = re.search(r"\| option of `@udf`.*?\n\n", README.read_text(), flags=re.S)
    assert named is not None
    options = {name for row in named[0].strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert options == set(udf.__kwdefaults__ or {})
