"""One driver a tool; each runs in the environment of its tool, as a process of its own."""
