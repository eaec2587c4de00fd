"""What `infill clusters init` writes, and its workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import BadSpec
from infra.policy import policy_beside
from stacks.new import write_project
from stacks.project import read_project

ROOT = Path(__file__).parents[2]


def workflow(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / ".github" / "workflows" / "clusters.yaml").read_text()))


def test_a_new_project_is_whole_and_keeps_to_its_policy(tmp_path: Path) -> None:
    written = write_project(tmp_path / "new")
    names = {path.relative_to(tmp_path / "new").as_posix() for path in written}
    stacks = {f"{kind}{name}.yaml" for kind in ("Pulumi.", "clusters/") for name in ("dev", "gpu", "eks")}
    pack = {"policy.yaml", "policy_pack/PulumiPolicy.yaml", "policy_pack/__main__.py"}
    rest = {"Pulumi.yaml", "__main__.py", "requirements.txt", ".gitignore", ".github/workflows/clusters.yaml", "prices.yaml"}
    assert names == stacks | pack | rest | {"backfills/words.yaml"}
    project = read_project(tmp_path / "new")
    assert [spec.name for spec in project.declared] == ["dev", "eks", "gpu"]
    assert project.policy == policy_beside(ROOT / "stacks" / "clusters") is not None
    with pytest.raises(BadSpec, match="is there already; give an empty folder"):
        write_project(tmp_path / "new")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("mine: 1")
    with pytest.raises(BadSpec, match=r"policy\.yaml is there already"):
        write_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["policy.yaml"]


def test_the_workflow_previews_a_pull_request_and_ups_a_merge(tmp_path: Path) -> None:
    write_project(tmp_path)
    made = workflow(tmp_path)
    assert made == workflow(ROOT / "examples" / "gitops")
    assert made[True] == {  # YAML 1.1 reads `on` so, and GitHub does not
        "pull_request": None,
        "push": {"branches": ["main"]},
        "schedule": [{"cron": "17 3 * * *"}],
    }
    steps = {step["name"]: step for step in made["jobs"]["clusters"]["steps"] if "name" in step}
    on = {name: step.get("if", "always") for name, step in steps.items()}
    assert on == {
        "Install": "always",
        "Kubeconfig": "always",
        "Policy": "always",
        "Preview": "github.event_name == 'pull_request'",
        "Cost": "github.event_name == 'pull_request'",
        "Comment": "github.event_name == 'pull_request'",
        "Up": "github.event_name == 'push'",
        "Diff": "github.event_name != 'pull_request'",
    }
    assert made["concurrency"]["cancel-in-progress"] is False
    assert "secrets." not in "".join(step["run"] for step in steps.values())  # by the environment only
