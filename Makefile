# Every target sets up what it needs (scripts/setup): Python packages into .venv, Debian packages when root.
.PHONY: setup demo test check lab-long lab-chaos sim bench docs
PYTEST = .venv/bin/python -m pytest

setup:
	@scripts/setup

demo: setup
	@.venv/bin/meshd demo

# In two processes: the laboratory mostly waits, the simulator mostly computes.
test: check
	$(PYTEST) -n 2 --dist loadfile -m "not lab_long"

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

lab-long: setup
	$(PYTEST) -m "lab or lab_long" --timeout 3600

CYCLES ?= 100
SEED ?= 1
lab-chaos: setup
	@.venv/bin/python -m simulations.lab chaos --cycles $(CYCLES) --seed $(SEED)

SEEDS ?= 2000
sim: setup
	@.venv/bin/python -m simulations.model --seeds $(SEEDS)
	@.venv/bin/python -m tests.model.report

# For a part of it: make bench BENCH="--nodes 30 --part idle"
BENCH ?=
bench: setup
	@.venv/bin/python -m simulations.lab bench $(BENCH)

docs: setup
	@.venv/bin/python -m pytest -q tests/test_docs.py
