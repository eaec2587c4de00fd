"""What `pulumi up` runs: the clusters of stacks/clusters/*.yaml that the stack's config names."""

from pathlib import Path

from stacks.program import declare

declare(Path(__file__).parent / "clusters")
