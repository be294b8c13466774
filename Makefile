# Safehold. Run `make` for what it can do. Nothing has to be activated: everything runs from .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
STAMP := .venv/.safehold-setup
# Two test processes, as on the two cores that everything is measured on. A file stays in one process.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help
help: ## what this Makefile can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## .venv in this checkout, from the locked and hashed dependencies

$(STAMP): pyproject.toml requirements-dev.lock scripts/setup.sh
	@bash scripts/setup.sh
	@touch $@

.PHONY: demo
demo: setup ## a simulated bank, a worker and its recommendations, in one terminal
	@$(BIN)/safehold demo $(DEMO)

.PHONY: parts
parts: setup ## Apache Kafka, Redis and promtool for the tests, installed where missing
	@$(BIN)/python -m tests.rigs.parts install

.PHONY: test
test: setup parts lint typecheck ## everything: linters, types, contracts and all tests on real Kafka and Redis
	@SAFEHOLD_REQUIRE_RIGS=1 $(PYTEST) $(TESTS)

.PHONY: test-fast
test-fast: setup ## the tests that need no server, in one to two minutes
	@$(PYTEST) -m "not slow and not rigs" $(TESTS)

.PHONY: lint
lint: setup ## style, formatting and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PYTHONPATH=. $(BIN)/lint-imports --no-cache

.PHONY: format
format: setup ## bring every file into the one format
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

.PHONY: typecheck
typecheck: setup ## mypy, strict
	@$(BIN)/mypy

.PHONY: bench
bench: setup parts ## speed, memory and latency on this machine, as in docs/benchmarks
	@$(BIN)/python -m benchmarks $(BENCH)

.PHONY: docs
docs: setup ## write the generated pages: detectors, schemas, topics, metrics
	@$(BIN)/python -m scripts.docs

.PHONY: compose-keys
compose-keys: ## the two key files that docker-compose.yml needs
	@bash scripts/compose_keys.sh

.PHONY: lock
lock: ## resolve the dependencies again and write both lock files
	@bash scripts/lock.sh

.PHONY: clean
clean: ## remove .venv and every cache inside the checkout
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
