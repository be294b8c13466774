# Safehold. Run `make` for what it can do. Nothing has to be activated: everything runs from .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
STAMP := .venv/.safehold-setup

.PHONY: help
help: ## what this Makefile can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## .venv in this checkout, from the locked and hashed dependencies

$(STAMP): pyproject.toml requirements-dev.lock scripts/setup.sh
	@bash scripts/setup.sh
	@touch $@

.PHONY: lock
lock: ## resolve the dependencies again and write both lock files
	@bash scripts/lock.sh
