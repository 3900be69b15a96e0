# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3.11
BIN := .venv/bin
TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder # files in the order of tests/conftest.py
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: setup demo test test-fast check fix smoke bench

setup: .venv/ready

# torch first and pinned, or pip takes a newer build with gigabytes of CUDA packages.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pip install --quiet --no-deps nlb-tools==0.0.4 # its pin of pandas is obsolete; tests compare with it
	touch $@

demo/data: .venv/ready
	rm -rf demo/data demo/unfinished
	$(BIN)/neuroint data simulate v1 demo/unfinished --preset tiny --seed 1 --set pool=8 --set train_clips=32
	mv demo/unfinished demo/data

demo: demo/data
	$(BIN)/neuroint run search_spaces/quickstart.yaml --data demo/data --results demo/results

test: .venv/ready
	$(TESTS)

test-fast: .venv/ready
	$(TESTS) -m "not slow and not ray"

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layers.py

fix: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smoke: .venv/ready
	$(BIN)/python tests/smoke.py

bench: .venv/ready
	$(BIN)/python benchmarks/run.py
