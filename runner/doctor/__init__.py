"""Is everything here that a backfill or a cluster needs? Every answer comes with what to do about it."""
