# `make run` and `make test` are all that a fresh clone needs besides Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Where it is set, every one of the hundreds of processes that the tests start would compile all sources again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-all lint bench clean
.DEFAULT_GOAL := run

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.bench: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[test,bench]'
	@touch $@ $(VENV)/.run $(VENV)/.test

run: $(VENV)/.run
	$(BIN)/frostbyte up --data ./data

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2 --dist loadgroup -m "not long"

test-all: lint
	$(BIN)/pytest -n 2 --dist loadgroup --hypothesis-profile=drawn

bench: $(VENV)/.bench
	$(BIN)/python -m tests.bench --rclone --moto
	$(BIN)/python -m tests.bench.engines
	$(BIN)/python -m tests.bench.crowds
	$(BIN)/python -m tests.bench.depth
	$(BIN)/python -m tests.bench.scale
	$(BIN)/python -m tests.bench.memory

clean:
	rm -rf $(VENV)
