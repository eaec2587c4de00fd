"""A backfill, from the table's files to the commit. `runner.layer` runs these in order, and again where the table changed.

1. Plan (`planner`, `plan`): which rows of which fragments need work (`selection`), what earlier runs left of them (`checkpoint`).
   Rows that are done and NULL: `settled`; whose inputs changed: `freshness`, `input_hash`. What was staged for an earlier version
   of the table is taken over by `carry`, which finds moved rows by `moves`. All sets of rows are `offsets`.
2. Drive (`driver`): `tasks` bundles and splits the works (`work`); `executors` runs them, on Ray by the actors of a `pool`
   (`ray_worker`). Workers that die: `losses`; slow ones: `stragglers`, `twins`; rows skipped: `skip_limit`.
3. Work (`worker`, `open_pass`): `reader` and `blobs` read inputs, `flight` keeps batches under way at a pace (`pacer`), `compute`
   calls the function: row by row (`rows`), by batches (`batches`), or many at once (`coroutines`, `coroutine_rows`), with what
   `preparing` made ready, under `timeouts`, `retries` and the `policy`; `failures` and `values` are what comes of it. A function
   that kills its worker goes into a process of its own (`isolated`, `function_process`).
4. Keep (`parts`, `column_file`): twice a second what is computed, then the column's file of a fragment in its final form.
5. Commit (`commit`): all files of a column in one table version.
"""
