# The two commands of the README: `make demo` and `make test`. Both set up a virtual environment first, with the versions
# of requirements/tested.txt. `make test-newest` and `make test-oldest` run the tests at the ends of the ranges in
# pyproject.toml, in environments of their own.
PYTHON ?= python3
VENV ?= .venv
PINS ?= requirements/tested.txt
SEEDS ?= 0
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := $(VENV)/.docs
# A module is compiled when it is first imported, not every one at installation. The result is kept, whatever the environment
# says.
export PYTHONDONTWRITEBYTECODE =
# Some packages come as source (rouge-score): they are built with tested tools, whatever the versions.
VERSIONS := --build-constraint requirements/tested.txt \
	$(if $(PINS),--constraint $(PINS),--upgrade --upgrade-strategy eager)

.PHONY: demo real-model real-models proving test suite test-newest test-oldest unit fuzz test-slow kills docs lint toy-models bench-models toy-200 sweep speed apply-speed cost cost-gpu wheels release-check clean

demo: $(READY)
	$(BIN)/kvw demo --out demo-run --force

# A small pretrained model, made once and kept in the cache: smollm2:135m.
real-model: $(READY)
	$(BIN)/python -m kvw.smollm2

# What was planted into it, with the models that never saw some of that; goes on where it stopped. With TRAIN=--train
# adapters are trained here, which takes minutes a model; without it those that ship are used.
real-models: real-model
	$(BIN)/python -m kvw.proving.planting $(TRAIN)

# Requests to forget facts that it knows, half of them for reporting, with the defaults; goes on where it stopped.
HALF ?= reporting
proving: real-model
	$(BIN)/python -m kvw.proving run --half $(HALF) --out proving-run

# mypy takes one core for a minute, so both at once.
test: $(READY)
	$(MAKE) --jobs=2 lint suite

# One thread each; three processes for two cores, as tests of kills and of servers wait.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist worksteal

suite: $(READY)
	$(TESTS) -n 3 -m "not slow"

test-newest:
	rm -f .venv-newest/.ready
	$(MAKE) suite VENV=.venv-newest PINS=

test-oldest:
	$(MAKE) suite VENV=.venv-oldest PINS=requirements/oldest.txt

# Few of these wait, and each process imports everything for itself.
unit: $(READY)
	$(TESTS) -n 2 -m "not slow and not thorough"

# Every reader of files that others wrote, with so many inputs each.
FUZZ ?= 300
fuzz: $(READY)
	KVW_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz

test-slow: $(DOCS)
	$(BIN)/python -m pytest -m slow

kills: $(READY)
	$(BIN)/python -m pytest -s -m slow tests/runs/test_kills.py

# The pages and a reference from the docstrings, in site/; ends with an error where a link leads nowhere.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

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

# Everything that the Dockerfile installs; afterwards `docker build` needs no network.
WHEELS ?= wheels
wheels: $(READY)
	rm -rf $(WHEELS)
	$(BIN)/python -m pip wheel --quiet $(VERSIONS) --wheel-dir $(WHEELS) ".[evidence,serve]"

# Wheel and sdist as they would be published, in dist/, built and looked at.
release-check: $(READY)
	$(BIN)/python -m pip install --quiet $(VERSIONS) hatchling
	rm -rf dist
	$(BIN)/python -m hatchling build
	KVW_DIST=$(CURDIR)/dist $(BIN)/python -m pytest tests/test_release.py

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest demo-run cost-run proving-run build dist site wheels

$(READY): pyproject.toml $(PINS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements/tested.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile $(VERSIONS) --editable ".[dev]"
	touch $(READY)

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet $(VERSIONS) --editable ".[docs]"
	touch $(DOCS)
