"""What `pulumi up` runs: the clusters and backfills of stacks/clusters/ and stacks/backfills/ that the stack's config names."""

from pathlib import Path

from stacks.program import declare

here = Path(__file__).parent
declare(here / "clusters", here / "backfills")
