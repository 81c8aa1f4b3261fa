# The two commands that matter:   make image [ARCH=aarch64]   and   make test
# Both set up what they need first (Debian packages, a virtual environment) and say so.

ARCH   ?= aarch64
IMAGE  ?= minimal
PYTHON ?= python3
# `true` skips the Debian packages, for hosts that are set up in another way.
SETUP_HOST ?= tools/setup-host
# System tests are bound by the guests' CPUs.
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)

BIN := .venv/bin
export PYTHON

# One step after the other: each prepares the next.
.NOTPARALLEL:
.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

.PHONY: image
image: setup ## build and boot-test the minimal image (ARCH=aarch64, ppc64le, x86_64, all)
	@$(BIN)/imagefactory build '$(IMAGE)' $(patsubst %,--arch '%',$(ARCH))
	@echo 'To upload it to a cloud of its own on this machine:'
	@echo "  $(BIN)/imagefactory devcloud up"
	@echo "  $(BIN)/imagefactory upload $(IMAGE) $(patsubst %,--arch %,$(ARCH)) --cloud devcloud"

.PHONY: test
test: setup-tests lint types unit system ## every check there is: the quick ones, then real boots

.PHONY: check
check: setup lint types unit ## the quick checks only: lint, types, unit tests

.PHONY: lint
lint: setup-python ## style: ruff check and ruff format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: setup-python ## static types: mypy, strict
	$(BIN)/mypy

.PHONY: unit
unit: setup-python ## tests that start no guest and no cloud
	$(BIN)/python -m pytest -m 'not system' -n '$(JOBS)'

.PHONY: system
system: setup-tests ## tests that build images, boot them and talk to a real Glance
	$(BIN)/python -m pytest -m 'system and not long' -n '$(JOBS)' --dist worksteal --durations 15

.PHONY: long
long: setup-tests ## what `make test` leaves out for its length: kernel updates on more architectures
	$(BIN)/python -m pytest -m long -n '$(JOBS)' --dist worksteal --durations 15

# The images that are built and booted here; ubuntu-24.04 never was.
TABLE := minimal minimal-partition minimal-on-arm debian-12 debian-13

.PHONY: table
table: setup ## build all images for all architectures, and write what came out into README.md
	@$(BIN)/imagefactory build $(TABLE) --arch all
	@tools/readme-table

.PHONY: bench
bench: setup-bench ## measure this against others, an hour on a quiet machine, into docs/benchmarks.md
	@$(BIN)/python -m tools.bench

.PHONY: doctor
doctor: setup ## what this machine has and lacks
	@$(BIN)/imagefactory doctor

.PHONY: setup
setup: ## install what is missing: Debian packages and the virtual environment
	@$(SETUP_HOST)
	@tools/setup-venv

.PHONY: setup-tests
setup-tests:
	@$(SETUP_HOST) tests
	@tools/setup-venv

.PHONY: setup-bench
setup-bench:
	@$(SETUP_HOST) tests
	@$(SETUP_HOST) bench
	@tools/setup-venv

.PHONY: setup-python
setup-python:
	@tools/setup-venv

.PHONY: clean
clean: ## remove the virtual environment and all caches of the checkout (never your images)
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
