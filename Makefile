# make demo and make test are all that a newcomer needs: each makes .venv and installs what is missing.

PYTHON ?= python3
# Tests run on all cores, up to four; those of one file share what is costly to make, so they stay together. In their
# order: by default files with few tests come last, and these take longest.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

BIN := .venv/bin

.PHONY: demo test test-all test-lowest audit faults fuzz bench site tutorial lint format clean

# The same without make, on Windows too:  python install.py --demo
demo: .venv/.core
	$(PYTHON) -c 'import install; install.demo()'

test: .venv/.dev
	$(BIN)/python -m pytest $(PARALLEL)

test-all: .venv/.all
	$(BIN)/python -m pytest $(PARALLEL)

# The same with the lowest versions that pyproject.toml allows, in an environment of their own.
test-lowest:
	$(PYTHON) -m venv .lowest
	$(PYTHON) .ci/lowest.py > .lowest/constraints.txt
	.lowest/bin/pip --disable-pip-version-check install --quiet --constraint .lowest/constraints.txt --editable ".[dev]"
	.lowest/bin/python -m pytest $(PARALLEL)

# Known weaknesses of what is installed; asks the package index.
audit: .venv/.all
	$(PYTHON) -m venv .audit
	.audit/bin/pip --disable-pip-version-check install --quiet pip-audit
	$(BIN)/pip freeze --exclude-editable > .audit/installed.txt
	.audit/bin/pip-audit --requirement .audit/installed.txt --no-deps --disable-pip

# Kills every kind of work several times, starts it twice at once, fills its disk; damages every file of a run.
KILLS ?= 5
SEED ?= $(shell date +%s)
faults: .venv/.all
	KILLS=$(KILLS) SEED=$(SEED) $(BIN)/python -m pytest tests/faults/test_kills.py tests/faults/test_company.py tests/faults/test_disk.py tests/faults/test_damage.py

# Damages files, settings and requests in thousands of ways.
CASES ?= 10000
fuzz: .venv/.all
	CASES=$(CASES) $(BIN)/python -m pytest tests/faults/test_fuzz.py tests/faults/test_requests.py --timeout 1800

bench: .venv/.all
	$(BIN)/python -m benchmarks

# The documentation, to be read from site/index.html. Material for MkDocs announces its successor in every build.
site: .venv/.all
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

# Runs the notebook of the tutorial: about half an hour.
tutorial: .venv/.all
	TUTORIAL=1 $(BIN)/python -m pytest tests/test_notebook.py --timeout 7200

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .lowest .audit *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis site

.venv/.core: pyproject.toml
	$(PYTHON) install.py
	@touch $@

.venv/.dev: pyproject.toml
	$(PYTHON) install.py dev
	@touch $@ .venv/.core

.venv/.all: pyproject.toml
	$(PYTHON) install.py all
	@touch $@ .venv/.dev .venv/.core
