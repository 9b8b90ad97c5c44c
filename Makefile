# Every target sets up what it needs. See README.md.
VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SEEDS  ?= 200

.PHONY: venv system demo test check unit e2e simulate soak bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; set PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/system-packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[examples,dev]'
	@touch $@

system:  ## packages of the system that make things better, where root is at hand
	@tools/system-packages bubblewrap

demo: venv system  ## the main job on four local peers
	@$(BIN)/infra demo

check: venv  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: venv system
	$(BIN)/pytest -m 'not e2e'

e2e: venv system
	$(BIN)/pytest -m e2e

simulate: venv  ## SEEDS=n worlds, each drawn from its seed
	$(BIN)/python -m simulations explore --seeds $(SEEDS)

test: check unit e2e simulate

soak: venv system  ## what takes hours, and goes on where it stopped: see tests/soak/__main__.py
	@tools/system-packages iproute2 iptables
	$(BIN)/python -m tests.soak

OTHERS := .build/comparison

$(OTHERS)/.installed: benchmarks/comparison/requirements.txt
	$(PYTHON) -m venv $(OTHERS)
	$(OTHERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench: venv system $(OTHERS)/.installed  ## all benchmarks, a JSON line each; compared with Ray and Dask
	@for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
