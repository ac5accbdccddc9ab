# Each target makes .venv first if it is missing or older than what it is made from.

VENV := .venv
STAMP := $(VENV)/.installed
CONSTRAINTS := .ci/constraints.txt
PYTHON := $(VENV)/bin/python
ARGS ?=
# Where no GPU's device file is, the launcher need not look for one and say that it found none.
QUIETLY := $(if $(wildcard /dev/nvidiactl /dev/kfd /dev/dri/render*),,DS_ACCELERATOR=cpu)

.PHONY: train test bench recipes lint
.DELETE_ON_ERROR:

train: $(STAMP)
	$(QUIETLY) PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/deepspeed --quiet fastclip/train.py $(ARGS)

test: $(STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PYTHON) -m pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

bench: $(STAMP)
	$(PYTHON) -m benchmarks.run $(ARGS)

recipes: $(STAMP)
	$(PYTHON) -m benchmarks.recipes.train $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

$(STAMP): pyproject.toml setup.py $(CONSTRAINTS)
	@sh .ci/make_venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip "setuptools>=77"
	$(PYTHON) -m pip install --quiet -c $(CONSTRAINTS) -e ".[train,bench,test,dev]"
	@touch $@
