# Every target sets up all it needs: Python 3.11 or newer, make and a package index are enough.
#
#   make demo              run six prediction services the whole way round
#   make test              lint, types, import rules, tests
#   make test-all          and the slow ones
#   make up                Dagster and the online service, until Ctrl-C       (port=... dagster_port=...)
#   make lab               JupyterLab on notebooks/
#   make setup             the environment alone, for .venv/bin/windrow
#   make bench             measure against the bars                           (only=NAME)
#   make format            bring the code into its form

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := $(shell cksum < requirements.lock | tr -d ' ')
READY  := $(VENV)/.ready-$(LOCK)
SHELL  := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Data files where they are; simulators answer for the ones that are not there.
export WINDROW_DATA    ?= $(abspath $(if $(wildcard ../shared/data),../shared/data,data))
export WINDROW_HOME    ?= $(CURDIR)/.windrow
export WINDROW_PROJECT ?= $(CURDIR)
# uv trusts the certificates that pip was told to trust.
ifneq ($(PIP_CERT),)
export SSL_CERT_FILE ?= $(PIP_CERT)
endif
# Numerical libraries must not wait by spinning: on two cores that turns a second of training into half a minute.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo test test-all lint up lab bench format

help:
	@sed -n 's/^#   //p' Makefile

setup: $(READY)

# A set-up that was killed in the middle leaves .setting-up behind: the next one starts afresh.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "windrow needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (once; about half a minute with uv, two with pip alone)"
	@if [ -e $(VENV)/.setting-up ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.setting-up && rm -f $(VENV)/.ready-*
	@echo "  1/3 a virtual environment" && $(PYTHON) -m venv $(VENV)
	@echo "  2/3 $$(grep -c == requirements.lock) packages, as locked" && $(call install,-r requirements.lock)
	@echo "  3/3 windrow itself" && $(call install,--no-deps --no-build-isolation -e .)
	@rm $(VENV)/.setting-up && touch $@

# uv where it can be had and sees the index that pip is configured for, else pip alone.
define install
{ export PIP_DISABLE_PIP_VERSION_CHECK=1; \
  $(BIN)/python -m pip install --quiet uv >/dev/null 2>&1 && \
  UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || echo $${PIP_INDEX_URL:-})}" && \
  if [ -n "$$UV_DEFAULT_INDEX" ]; then export UV_DEFAULT_INDEX; else unset UV_DEFAULT_INDEX; fi && \
  $(BIN)/uv pip install --quiet --python $(BIN)/python $(1) 2>$(VENV)/uv.log; } || \
{ echo "      (without uv: pip)"; $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1); }
endef

demo: $(READY)
	@$(BIN)/windrow demo

lint: $(READY)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "Not in form: run 'make format'"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >$(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

# A file's tests share what they set up. In the order of their names, files of few and long tests do not end up last.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test: lint
	@$(PYTEST)

SOAK := tests/laws/test_soak.py
test-all: test
	@$(PYTEST) -m slow --ignore=$(SOAK)
	@$(BIN)/python -m pytest -q -m slow $(SOAK)  # alone: it says what the machine can do

up: $(READY)
	@$(BIN)/windrow up $(if $(port),--port $(port)) $(if $(dagster_port),--dagster-port $(dagster_port))

lab: $(READY)
	@$(BIN)/python -m windrow.telemetry $(BIN)/jupyter lab --notebook-dir=notebooks \
	  --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate \
	  --LabApp.extension_manager=readonly $(if $(filter 0,$(shell id -u)),--allow-root)

bench: $(READY)
	@$(BIN)/python -m tests.benchmarks $(only)

format: $(READY)
	@$(BIN)/ruff check --quiet --fix-only . ; $(BIN)/ruff format --quiet .
