# Six verbs: setup, demo, test, check, bench, docs. Each installs what it needs into .venv.
# Long work has verbs of its own: train-… and evaluate-… of hits, particles, classes2d and tomograms, and bench-gpu.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export OMP_NUM_THREADS ?= 1
# Many tests wait for a process, a browser or a clock: two at a time halve the suite on two cores.
TEST_JOBS ?= 2

.PHONY: setup demo test check bench docs train-hits evaluate-hits train-particles evaluate-particles train-classes2d evaluate-classes2d train-tomograms evaluate-tomograms bench-gpu clean
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
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal $(TEST_ARGS)

check: $(VENV)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p beamsieve
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## throughput, latency and memory, each beside the naive way
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-gpu: $(VENV)/.dev ## the same on a CUDA device
	$(BIN)/python -m benchmarks --device cuda $(BENCH_ARGS)

docs: $(VENV)/.dev ## the reference of settings and metrics, and Grafana's dashboards, from the code
	$(BIN)/python -m docs.generate
	$(BIN)/python -m beamsieve.deploy.grafana

train-hits: $(VENV)/.run ## train the shipped hit classifier again, from its seed
	$(BIN)/beamsieve train hits --recipe robust --seed 1 --out train-hits $(TRAIN_ARGS)

evaluate-hits: $(VENV)/.run ## print its table again
	$(BIN)/beamsieve evaluate hits --bundle hits-resnet10 $(EVALUATE_ARGS)

# The maps are not part of the project: EMDB's and others', see the cards of the bundles.
MAPS ?= $(or $(BEAMSIEVE_DATA),../shared/data)/maps
# What the modern recipe was when they were trained; it has since become better centred at low signal-to-noise.
SHIPPED := --set activation=sigmoid --set rate=0.02 --set sigma=0.12 --set beta=0.5
SCENES := paper,contaminated,crowded,carbon,empty

train-particles: $(VENV)/.run ## train the shipped pickers again, from their seeds
	$(BIN)/beamsieve train particles --simulate paper,crowded,contaminated,carbon,empty --binned 2 --snr 0.3,0.1,0.03,0.01 \
	  --map ribosome --map proteasome --map hemocyanin --map apoferritin --map $(MAPS)/70S_65.mrc@5.4 --map $(MAPS)/1aon.pdb.gz \
	  --map $(MAPS)/emd_1066.map --micrographs 48 --seed 12 --epochs 30 $(SHIPPED) --name particles-general \
	  --out train-particles/general --resume $(TRAIN_ARGS)
	$(BIN)/beamsieve train particles --simulate $(SCENES) --binned 2 --snr 0.1,0.03,0.01 --map ribosome --map $(MAPS)/70S_65.mrc@5.4 \
	  --micrographs 48 --seed 11 --epochs 30 $(SHIPPED) --name particles-ribosome --out train-particles/ribosome --resume \
	  $(TRAIN_ARGS)
	$(BIN)/beamsieve train particles --recipe paper --simulate $(SCENES) --binned 2 --snr 0.1,0.03,0.01 --map ribosome \
	  --map $(MAPS)/70S_65.mrc@5.4 --micrographs 48 --seed 11 --epochs 40 --name particles-paper --out train-particles/paper \
	  --resume $(TRAIN_ARGS)

evaluate-particles: $(VENV)/.run ## train at each signal-to-noise ratio and print the table (the paper's Fig. 6)
	$(BIN)/beamsieve evaluate particles --simulate paper --train-at-each-snr --map $(MAPS)/70S_65.mrc@5.4 --train-on 12 \
	  --micrographs 8 --seed 0 --out evaluate-particles $(EVALUATE_ARGS)

VALIDATED := --validation $(MAPS)/emd_1066.map --validation $(MAPS)/emd_1099.map

train-classes2d: $(VENV)/.run ## train the shipped denoisers again, from their seeds
	$(BIN)/beamsieve train classes2d --recipe general --images 1000 --epochs 6 --joint 18 --threads 1 \
	  --map ribosome --map proteasome --map hemocyanin --map apoferritin --map $(MAPS)/emd_1022.map --map $(MAPS)/emd_1023.map \
	  --map $(MAPS)/emd_1024.map --map $(MAPS)/70S_65.mrc@5.4 $(VALIDATED) --out train-classes2d/general --resume $(TRAIN_ARGS)
	$(BIN)/beamsieve train classes2d --recipe paper --threads 1 $(VALIDATED) --out train-classes2d/paper --resume $(TRAIN_ARGS)

evaluate-classes2d: $(VENV)/.run ## denoise and cluster particles of proteins that no training saw, and print the tables
	$(BIN)/beamsieve evaluate classes2d --from classes2d-paper --also classes2d-general --out evaluate-classes2d $(EVALUATE_ARGS)

train-tomograms: $(VENV)/.run ## train the shipped autoencoders of tomograms again, from their seeds
	$(BIN)/beamsieve train tomograms --simulated 32 --check 8 --threshold 3 --epochs 9 --seed 1 --threads 1 \
	  --out train-tomograms/general --resume $(TRAIN_ARGS)
	$(BIN)/beamsieve train tomograms --simulated 32 --check 8 --threshold 3 --posed --epochs 7 --seed 1 --threads 1 \
	  --out train-tomograms/posed --resume $(TRAIN_ARGS)

evaluate-tomograms: $(VENV)/.run ## mine, mark and segment simulated tomograms that no training saw, and print the tables
	$(BIN)/beamsieve evaluate tomograms --start tomograms-segments --minutes 3 --threads 2 --out evaluate-tomograms $(EVALUATE_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
