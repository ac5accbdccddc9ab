# Each target makes .venv first if it is missing or older than what it is made from.

VENV := .venv
STAMP := $(VENV)/.installed
CONSTRAINTS := .ci/constraints.txt
PYTHON := $(VENV)/bin/python
ARGS ?=

.PHONY: train test bench lint
.DELETE_ON_ERROR:

train: $(STAMP)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/deepspeed --quiet fastclip/train.py $(ARGS)

test: $(STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PYTHON) -m pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

bench: $(STAMP)
	$(PYTHON) benchmarks/run.py $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

$(STAMP): pyproject.toml setup.py $(CONSTRAINTS)
	@sh .ci/make_venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip "setuptools>=77"
	$(PYTHON) -m pip install --quiet -c $(CONSTRAINTS) -e ".[train,bench,test,dev]"
	@touch $@
