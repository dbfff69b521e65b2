# make demo    the IIMM experiment in miniature, after setting everything up
# make test    the tests, two to four at a time, after setting everything up
# make faults  the long form of tests/faults: hundreds of kills, tens of thousands of damaged files; eight minutes
# make bench   speed and memory against the plain way, and the README's table of them; a quarter of an hour on two quiet cores
# make coverage  the tests again, and which lines none of them ran; half as long again
# make lint    ruff and types
# Everything is installed into the active virtual environment, or into .venv when none is active. What is installed already
# is not installed again: a stamp in the environment is as new as the requirements.

VENV := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.clipscope-installed
INSTALLED_DEV := $(VENV)/.clipscope-installed-dev

.PHONY: demo test faults bench coverage lint format setup clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(PYTHON) reproduce.py plans/demo.toml --num-workers 0

test: $(INSTALLED_DEV)
	$(PYTHON) -m pytest -n auto --maxprocesses 4 --dist worksteal

faults: $(INSTALLED_DEV)
	CLIPSCOPE_FAULTS=long $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist worksteal tests/faults

coverage: $(INSTALLED_DEV)
	$(PYTHON) -m pytest -n auto --maxprocesses 4 --dist worksteal --cov --cov-report=term-missing:skip-covered

bench: $(INSTALLED)
	$(PYTHON) -m benchmarks

lint: $(INSTALLED_DEV)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(INSTALLED_DEV)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

setup: $(INSTALLED)

$(PYTHON):
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 10) and "clipscope needs Python 3.10 or newer; python3 is " + sys.version)'
	python3 -m venv $(VENV)

$(INSTALLED): requirements.txt | $(PYTHON)
	$(PYTHON) -m pip install --quiet -r requirements.txt
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt requirements.txt | $(PYTHON)
	$(PYTHON) -m pip install --quiet -r requirements-dev.txt
	@touch $(INSTALLED) $@

clean:
	rm -rf .venv studies/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
