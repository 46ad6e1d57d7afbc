# The two commands of the README: `make demo` and `make test`. Both set up a virtual environment first.
PYTHON ?= python3
VENV ?= .venv
SEEDS ?= 0
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test unit test-slow lint toy-models bench-models toy-200 sweep speed apply-speed cost cost-gpu clean

demo: $(READY)
	$(BIN)/kvw demo --out demo-run --force

test: $(READY) lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

unit: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow and not thorough"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

toy-models: $(READY)
	$(BIN)/python -m kvw.toy.train --out toy-models/vanilla
	$(BIN)/python -m kvw.toy.train --out toy-models/gold --without-forget

bench-models: $(READY)
	$(BIN)/python -m kvw.toy.benchmark --out bench-models --seeds $(SEEDS)

toy-200: $(READY)
	PYTHON=$(CURDIR)/$(BIN)/python benchmarks/toy_200.sh

sweep: $(READY)
	$(BIN)/python benchmarks/sweep_gamma.py

speed: $(READY)
	$(BIN)/python benchmarks/measure_speed.py

apply-speed: $(READY)
	$(BIN)/python benchmarks/apply_speed.py

cost: $(READY)
	$(BIN)/kvw bench cost recipes/cost/toy.toml --out cost-run/toy
	$(BIN)/kvw bench cost recipes/cost/100m.toml --out cost-run/100m

cost-gpu: $(READY)
	PYTHON=$(CURDIR)/$(BIN)/python benchmarks/cost_gpu.sh cost-run

clean:
	rm -rf $(VENV) demo-run cost-run build dist

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)
