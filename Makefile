# Two commands on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs/demo

.PHONY: demo test lint

$(VENV)/installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[report]'
	touch $@

$(VENV)/installed-dev: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/installed

# make demo                                  moving_shapes
# make demo DATA=folder [GROUPS='seq\d+']    your own videos
demo: $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" examples/demo.sh "$(RUNS)" "$(DATA)" '$(GROUPS)'

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term
