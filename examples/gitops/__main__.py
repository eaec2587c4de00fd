from stacks.program import declare

declare("clusters", "backfills")
