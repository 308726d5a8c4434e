# make setup      the installation alone: .venv with the exact versions of requirements.lock
# make demo       installs what is missing, then trains and evaluates the method on the embedded data (about 12 minutes on 2 cores)
# make test       installs what is missing, checks style and types, then runs all tests
# make test-cuda  runs the tests that need a CUDA device
# make lint       checks style, format and types (ruff, mypy)
# make format     sorts the imports and formats all files
# make wheel      builds dist/*.tar.gz and dist/*.whl
# make clean      removes .venv and what the demo and the builds wrote; your own folders below logs/ and datasets/ stay

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test test-cuda lint format wheel clean

setup: $(INSTALLED)

$(INSTALLED): requirements.lock requirements-no-deps.lock pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
		|| { echo "error: Python 3.10, 3.11 or 3.12 is needed (make PYTHON=python3.11 ...)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q --no-deps -r requirements-no-deps.lock
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q --no-deps --no-build-isolation -e .
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python tools/demo.py

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-cuda: $(INSTALLED)
	$(BIN)/python -m pytest -m cuda tests/cuda

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

wheel: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) build dist datasets/demo logs/demo
