# `make demo` opens the page, `make test` runs the checks; both set up first, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bases clean

demo: $(VENV)/demo bases
	$(BIN)/dsvlfs demo

test: $(VENV)/test bases
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q

# The frozen bases: fetched and converted once, to ~/.cache/dsvlfs.
bases: $(VENV)/demo
	@echo "== frozen bases"
	@$(BIN)/dsvlfs bases

$(VENV)/demo: requirements.txt pyproject.toml
	@echo "== virtual environment in $(VENV): the first time takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt -e .
	@touch $@

$(VENV)/test: $(VENV)/demo
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV)
