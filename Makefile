# make setup   the installation alone: .venv with the exact versions of requirements.lock
# make demo    installs what is missing, then trains and evaluates the method on the embedded data (about 15 minutes on 2 cores)
# make test    installs what is missing, then runs all tests
# make clean   removes .venv and what the demo built; your own folders below logs/ and datasets/ stay

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test clean

setup: $(INSTALLED)

$(INSTALLED): requirements.lock requirements-no-deps.lock setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
		|| { echo "error: Python 3.10, 3.11 or 3.12 is needed (make PYTHON=python3.11 ...)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q --no-deps -r requirements-no-deps.lock
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q --no-deps --no-build-isolation -e .
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python tools/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	rm -rf $(VENV) build datasets/demo logs/demo
