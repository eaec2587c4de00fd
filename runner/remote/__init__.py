"""Backfills whose driver runs on a cluster: `cluster_context` opens a place, `remote_job` follows, `remote_driver` runs there."""
