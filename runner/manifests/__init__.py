"""Manifests: what workers have beside the runner. Made, read and checked here; `runner.environments` puts them in place."""
