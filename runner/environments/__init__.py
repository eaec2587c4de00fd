"""From a manifest to a worker's process: `runtime_env` says what Ray makes, `worker_setup` uploads, `activation` runs there."""
