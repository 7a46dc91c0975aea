# Six verbs: setup, demo, test, check, bench, docs. Each installs what it needs into .venv.
# Long work has verbs of its own: train-hits, evaluate-hits, train-particles, evaluate-particles, bench-gpu.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test check bench docs train-hits evaluate-hits train-particles evaluate-particles bench-gpu clean
.DEFAULT_GOAL := demo

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "beamsieve needs Python 3.11 or newer; set PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	mkdir -p build/types && ln -sfn ../.. build/types/beamsieve
	touch $@

setup: $(VENV)/.dev ## everything, for developers

demo: $(VENV)/.run ## an emulated detector, a folder that fills, and the real daemon on each, for a minute
	$(BIN)/beamsieve demo $(DEMO_ARGS)

test: $(VENV)/.dev ## the test suite
	$(BIN)/python -m pytest $(TEST_ARGS)

check: $(VENV)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p beamsieve
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## throughput, latency and memory, each beside the naive way
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-gpu: $(VENV)/.dev ## the same on a CUDA device
	$(BIN)/python -m benchmarks --device cuda $(BENCH_ARGS)

docs: $(VENV)/.dev ## the reference of settings and metrics, from the code
	$(BIN)/python -m docs.generate

train-hits: $(VENV)/.run ## train the shipped hit classifier again, from its seed
	$(BIN)/beamsieve train hits --recipe robust --seed 1 --out train-hits $(TRAIN_ARGS)

evaluate-hits: $(VENV)/.run ## print its table again
	$(BIN)/beamsieve evaluate hits --bundle hits-resnet10 $(EVALUATE_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
