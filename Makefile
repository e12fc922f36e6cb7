# `make` alone prints this help. Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo pipeline serve test check openapi bench clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: $(READY) ## the whole system at 10,000 users x 10,000 places, then a served API
	@$(BIN)/recsys demo

pipeline: $(READY) ## the demo without serving
	@$(BIN)/recsys pipeline

serve: $(READY) ## serve what the pipeline published
	@$(BIN)/recsys serve

test: $(READY) ## all tests, with real Redis and Qdrant engines (about 10 minutes)
	$(BIN)/python -m pytest tests --ignore tests/benchmarks

check: $(READY) ## lint, types, import contracts, unit and contract tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit tests/contract

openapi: $(READY) ## write docs/openapi.json again, after a change of the API
	$(BIN)/python -m api.document docs/openapi.json

bench: $(READY) ## figures: speed of the parts, printed
	$(BIN)/python -m pytest tests/benchmarks -s -o faulthandler_timeout=3600

clean: ## remove the environment and every generated file
	-@test -x $(BIN)/recsys && $(BIN)/recsys down
	rm -rf $(VENV) data build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
