.PHONY: backfill test chaos lint bench render clean

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# The whole set-up: uv where it is on PATH, otherwise a uv of our own inside .venv. Compiling the installed packages is what
# makes Ray start in 3 s instead of 10: every one of its processes would otherwise compile them anew.
$(VENV)/.ready: pyproject.toml uv.lock Makefile
	@if command -v uv >/dev/null; then uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && UV=uv; \
	else $(PYTHON) -m venv $(VENV) && $(RUN) -m pip install --quiet "uv>=0.9" && UV=$(VENV)/bin/uv; fi; \
	UV_PROJECT_ENVIRONMENT=$(VENV) $$UV sync --quiet --locked --inexact --compile-bytecode
	@touch $@

backfill: $(VENV)/.ready  ## make a table of this Python's standard library and backfill three columns of it
	@$(RUN) -m examples.stdlib .demo

test: $(VENV)/.ready  ## all tests
	$(RUN) -m pytest

chaos: $(VENV)/.ready  ## 1,000 faults against running backfills, and a table of what they cost (CHAOS_FAULTS=200 CHAOS_SEED=2 for others)
	CHAOS_FAULTS=$${CHAOS_FAULTS:-1000} $(RUN) -m pytest -s tests/chaos

lint: $(VENV)/.ready  ## ruff and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.ready  ## side by side with pylance, lance-ray and Geneva; writes bench/RESULTS.md (about 25 minutes)
	$(RUN) -m bench

EXAMPLE := examples/gitops

render: $(VENV)/.ready  ## the clusters of examples/gitops as plain YAML, for Argo CD and for Flux
	@$(RUN) -m runner render $(EXAMPLE) -o $(EXAMPLE)/rendered/argocd --path rendered/argocd --repository https://github.com/example/clusters.git
	@$(RUN) -m runner render $(EXAMPLE) -o $(EXAMPLE)/rendered/flux --path rendered/flux --for flux
	@$(RUN) -m runner gitops clusters --repository https://github.com/example/clusters.git --stack production --cluster-admin \
	    --backend s3://example-state --env PULUMI_CONFIG_PASSPHRASE=pulumi/passphrase > $(EXAMPLE)/stack.yaml

clean:  ## remove what the other targets made
	rm -rf $(VENV) .demo bench/.envs bench/.work
