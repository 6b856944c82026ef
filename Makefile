PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint types interface pytest docs bases hooks clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo bases  ## set up once, and open the page
	$(BIN)/dsvlfs demo

test: lint types interface pytest  ## set up once, and check everything; the tests come last

lint: $(VENV)/test  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test  ## types
	$(BIN)/mypy

interface: $(VENV)/test  ## whether docs/interface.md is what the docstrings say
	$(BIN)/python docs/make_interface.py --check

pytest: $(VENV)/test bases  ## the tests alone
	$(BIN)/python -m pytest -q

docs: $(VENV)/test  ## write docs/interface.md from the docstrings
	$(BIN)/python docs/make_interface.py

bases: $(VENV)/demo  ## fetch and convert the frozen bases to ~/.cache/dsvlfs, once
	@echo "== frozen bases"
	@$(BIN)/dsvlfs bases

hooks: $(VENV)/test  ## check before every commit (lint, types, interface) and push (the tests)
	$(PIP) install pre-commit
	$(BIN)/pre-commit install --hook-type pre-commit --hook-type pre-push

clean:  ## remove the virtual environment
	rm -rf $(VENV)

$(VENV)/demo: requirements.txt pyproject.toml
	@echo "== virtual environment in $(VENV): the first time takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements.txt -e .
	@touch $@

$(VENV)/test: $(VENV)/demo
	$(PIP) install -e '.[test]'
	@touch $@
