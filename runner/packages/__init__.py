"""What of this machine goes to workers: folders as packages, content-addressed, in layers.

On the client: `roots` finds a folder, `scan` lists it by the rules of `ignore`, `index` remembers hashes, `layers` splits,
`package` puts it together, `upload` sends what is missing, `gc` collects. On a worker: `unpack`, which needs `format`,
`runner.store` and obstore, and nothing else.
"""
