# Which Python makes the environments: `make test PYTHON=python3.13`. One made by another is made anew
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

# What `make bench` runs; QUICK=1 keeps each to seconds
BENCHMARKS := kernels shamir client server server_sum server_memory scaling papers plan threat_models he event_loop systems
QUICK_kernels := --rounds 3
QUICK_client := --clients 60 --dimension 10000 --repeats 3
QUICK_server := --clients 20 60 --dimension 10000
QUICK_server_sum := --clients 60 --dimension 100000
QUICK_server_memory := --clients 60 120 --dimension 100000
QUICK_scaling := --quick
QUICK_papers := --quick
QUICK_plan := --repeats 1
QUICK_threat_models := --clients 20 --dimension 10000
QUICK_he := --clients 10 --dimension 20000 --uploads 50 --repeats 3
QUICK_event_loop := --clients 10 --dimension 10000
QUICK_systems := --preset quick --repeats 1 --installed-only

# Flower pins much of what it needs, so it has an environment of its own
FLOWER_VENV ?= build/flower
FLOWER_BIN := $(FLOWER_VENV)/bin

.PHONY: FORCE help train test test-slow test-flower test-flower-deployment flower-simulation flower-deployment mutation lint types \
  matrix vectors check bench bench-pictures bench-flower $(BENCHMARKS:%=bench-%) clean

help:
	@echo "make train       set up and train a model across ten simulated hospitals"
	@echo "make test        set up and pass the tests"
	@echo "make matrix      test every Python here with the lowest and the newest dependencies, and the sdist and the wheel"
	@echo "make check       lint, types, tests"
	@echo "make vectors     write the test vectors anew (ARGS=--check: compare them)"
	@echo "make test-slow   the tests that take minutes"
	@echo "make test-flower   set up Flower (about 530 MB) and pass its tests, in memory and in its simulation engine"
	@echo "make test-flower-deployment   the same in its deployment engine on loopback: minutes"
	@echo "make flower-simulation   the Flower example in the simulation engine; flower-deployment: as processes, one killed"
	@echo "make mutation    change the library in one place at a time: which change does no test notice? (ARGS=params: one module)"
	@echo "make bench       measure everything (QUICK=1: in little); one of it: $(BENCHMARKS:%=bench-%)"
	@echo "make bench-flower    measure secagg under Flower beside Flower's own secure aggregation"
	@echo "make bench-systems   measure secagg beside other systems, which it installs"

# Looks each time and writes only where the environment is new, so that what is installed stays installed
$(VENV)/.interpreter $(FLOWER_VENV)/.interpreter: FORCE
	@$(PYTHON) tools/environment.py $(@D)

# Each target installs the extra that it needs, once: a stamp file says that it has
$(STAMPS)/%: pyproject.toml $(VENV)/.interpreter
	$(PIP) install --quiet --editable ".[$*]"
	@mkdir -p $(STAMPS) && touch $@

train: $(STAMPS)/demo
	$(BIN)/secagg train $(ARGS)

# As many files of tests at once as there are cores; AT_ONCE=0: one after the other, in one process
AT_ONCE ?= auto
test: $(STAMPS)/test
	$(BIN)/python -m pytest -n $(AT_ONCE) --dist loadfile $(ARGS)

matrix:
	$(PYTHON) tools/matrix.py $(ARGS)

test-slow: $(STAMPS)/test
	$(BIN)/python -m pytest -m slow $(ARGS)

$(FLOWER_VENV)/.installed: pyproject.toml $(FLOWER_VENV)/.interpreter
	$(FLOWER_BIN)/python -m pip --disable-pip-version-check install --quiet --editable ".[flower-test]"
	@touch $@

test-flower: $(FLOWER_VENV)/.installed
	$(FLOWER_BIN)/python -m pytest -m "not slow" tests/integrations $(ARGS)

test-flower-deployment: $(FLOWER_VENV)/.installed
	$(FLOWER_BIN)/python -m pytest -m slow tests/integrations/flower/test_flower_engines.py $(ARGS)

flower-simulation: $(FLOWER_VENV)/.installed
	$(FLOWER_BIN)/python examples/flower/simulate.py $(ARGS)

flower-deployment: $(FLOWER_VENV)/.installed
	$(FLOWER_BIN)/python examples/flower/deploy.py $(ARGS)

mutation: $(STAMPS)/mutation
	$(BIN)/python tests/mutation/run.py $(ARGS)

lint: $(STAMPS)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/lint
	$(BIN)/mypy

vectors: $(STAMPS)/test
	$(BIN)/python tests/vectors/generate.py $(ARGS)

check: lint types test

# Tables are printed; figures and pictures lie in build/bench afterwards
BENCH_OUT := build/bench
WRITES_BY_ITSELF := bench-scaling bench-papers

bench: $(BENCHMARKS:%=bench-%) bench-pictures

$(filter-out bench-systems $(WRITES_BY_ITSELF),$(BENCHMARKS:%=bench-%)): bench-%: $(STAMPS)/bench
	@mkdir -p $(BENCH_OUT)
	$(BIN)/python benchmarks/$*.py --json $(BENCH_OUT)/$*.json $(if $(QUICK),$(QUICK_$*)) $(ARGS)

$(WRITES_BY_ITSELF): bench-%: $(STAMPS)/bench
	$(BIN)/python benchmarks/$*.py --out $(BENCH_OUT) $(if $(QUICK),$(QUICK_$*)) $(ARGS)

bench-systems: $(STAMPS)/bench
	@mkdir -p $(BENCH_OUT)
	$(BIN)/python -m benchmarks.systems.run --json $(BENCH_OUT)/systems.json --plot $(BENCH_OUT) \
	  $(if $(QUICK),$(QUICK_systems)) $(ARGS)

# In Flower's own environment: secagg under it beside its own secure aggregation
bench-flower: $(FLOWER_VENV)/.installed
	@mkdir -p $(BENCH_OUT)
	$(FLOWER_BIN)/python -m benchmarks.flower.side_by_side --json $(BENCH_OUT)/flower.json \
	  $(if $(QUICK),--no-simulation) $(ARGS)

# Draws what the others have written
bench-pictures: $(STAMPS)/bench
	$(BIN)/python benchmarks/pictures.py --out $(BENCH_OUT)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
