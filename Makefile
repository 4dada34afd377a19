PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help train test test-slow mutation lint types vectors check bench-client bench-kernels bench-shamir bench-server bench-threat_models clean

help:
	@echo "make train       set up and train a model across ten simulated hospitals"
	@echo "make test        set up and pass the tests"
	@echo "make check       lint, types, tests"
	@echo "make vectors     write the test vectors anew (ARGS=--check: compare them)"
	@echo "make test-slow   the tests that take minutes"
	@echo "make mutation    change the library in one place at a time; list the changes that no test notices (ARGS=params: one module)"
	@echo "make bench-client bench-server bench-kernels bench-shamir   measure"

# Each target installs the extra that it needs, once: a stamp file says that it has
$(STAMPS)/%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --editable ".[$*]"
	@mkdir -p $(STAMPS) && touch $@

train: $(STAMPS)/demo
	$(BIN)/secagg train $(ARGS)

test: $(STAMPS)/test
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(STAMPS)/test
	$(BIN)/python -m pytest -m slow $(ARGS)

mutation: $(STAMPS)/test $(STAMPS)/mutation
	$(BIN)/python tests/mutation/run.py $(ARGS)

lint: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/test
	$(BIN)/mypy

vectors: $(STAMPS)/test
	$(BIN)/python tests/vectors/generate.py $(ARGS)

check: lint types test

bench-client bench-kernels bench-shamir bench-server bench-threat_models: bench-%: $(STAMPS)/bench
	$(BIN)/python benchmarks/$*.py $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
