# Two commands on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs/demo
# The first of these that runs; tensorflow-io has no wheels for others.
PYTHON_IO ?= $(shell for name in python3.11 python3.12 python3.10; do \
	$$name -c '' 2>/dev/null && echo $$name && break; done)
VENV_IO ?= .venv-tensorflow-io
VENV_BACKENDS ?= .venv-backends

.PHONY: demo test lint test-tensorflow-io test-backends

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

# Clouds by tensorflow-io, at servers on loopback, in TensorFlow 2.16.
$(VENV_IO)/installed: setup.cfg pyproject.toml
	test -x $(VENV_IO)/bin/python || $(PYTHON_IO) -m venv $(VENV_IO)
	$(VENV_IO)/bin/python -m pip install --quiet --editable '.[cloud-dev]'
	touch $@

ifeq ($(strip $(PYTHON_IO)),)
test-tensorflow-io:
	@echo "test-tensorflow-io is skipped: it needs Python 3.10, 3.11 or 3.12"
else
test-tensorflow-io: $(VENV_IO)/installed
	$(VENV_IO)/bin/python -m pytest tests/cloud
endif

# Keras on JAX and on torch, beside TensorFlow: tests of its own, and those
# whose oracle is no TensorFlow. For Linux on x86-64 the package index has
# torch with 6 GB of libraries for graphics cards; pip's own
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu spares them.
TESTS_BACKENDS := tests/backends $(addprefix tests/test_, oracles.py \
	losses.py optimizer.py training_metrics.py)

$(VENV_BACKENDS)/installed: setup.cfg pyproject.toml
	test -x $(VENV_BACKENDS)/bin/python || $(PYTHON) -m venv $(VENV_BACKENDS)
	$(VENV_BACKENDS)/bin/python -m pip install --quiet \
		--editable '.[backends-dev]' || { echo "test-backends: JAX and torch \
	cannot be installed for $$($(PYTHON) --version); pip says why" >&2; false; }
	touch $@

test-backends: $(VENV_BACKENDS)/installed
	KERAS_BACKEND=jax $(VENV_BACKENDS)/bin/python -m pytest $(TESTS_BACKENDS)
	KERAS_BACKEND=torch $(VENV_BACKENDS)/bin/python -m pytest $(TESTS_BACKENDS)
