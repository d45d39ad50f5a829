# make quickstart: set up, run the main job, print the path of the page.  make test: set up, pass the tests.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help venv quickstart test faults counts bench-cost calibration bench-machinery bench-search bench-training bench-size check format requirements clean

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %s: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import uv' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

venv: $(READY)  ## create .venv with the pinned dependencies and the project

quickstart: $(READY)  ## run the main job on real digits and print the path of the page (two minutes)
	$(BIN)/harness run studies/quickstart.py
	$(BIN)/harness report quickstart

test: $(READY)  ## the fast test suite
	$(BIN)/python -m pytest tests -m "not faults_long and not counts_long"

faults: $(READY)  ## cause every fault we know of, many times, and print what it cost (20 minutes)
	$(BIN)/python -m pytest tests/faults -rs -n 3

calibration: $(READY)  ## how often verdicts are wrong in simulated studies, and what they find (6 minutes)
	$(BIN)/python tests/benchmarks/calibration.py

counts: $(READY)  ## a thousand random networks: closed forms against what is built (5 minutes)
	$(BIN)/python -m pytest tests/test_cost.py

bench-cost: $(READY)  ## how many random configs of real spaces are priced in a second
	$(BIN)/python tests/benchmarks/pricing.py

bench-machinery: $(READY)  ## milliseconds of an empty trial: ours and the obvious stack, side by side (10 minutes)
	$(BIN)/python tests/benchmarks/machinery.py

bench-search: $(READY)  ## epochs that each strategy needs, replayed on a real table (an hour)
	$(BIN)/python tests/benchmarks/search.py

bench-training: $(READY)  ## pictures a second: our trial, a bare loop, the common way, timm's (20 minutes; HARNESS_DATA=DIR)
	$(BIN)/python tests/benchmarks/training.py --compiled

bench-attention: $(READY)  ## times of attention modules against naive forms and plain networks (10 minutes)
	$(BIN)/python tests/benchmarks/attention.py

bench-size: $(READY)  ## seconds and memory of studies of 20,000 and 100,000 trials, beside Optuna's own calls (30 minutes)
	$(BIN)/python tests/benchmarks/size.py

check: $(READY)  ## lint, format, types and walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_walls.py

format: $(READY)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

requirements: $(READY)  ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --extra dashboard --extra figures --extra postgres --extra s3 --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header --upgrade -o requirements.txt

clean:  ## remove .venv and caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
