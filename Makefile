# All that a fresh machine needs is Python 3.11+, git and make. No target asks for another to be run first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test lint bench coverage reference clean

demo: $(STAMP) ## train, prune, fine-tune and evaluate on real digits
	rm -rf runs/demo
	$(BIN)/demiglace run recipe:digits --out runs/demo

test: $(STAMP) lint ## lint, types, import contract, all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## the figures of the docs, measured side by side in one run
	$(BIN)/python -m benchmarks

coverage: $(STAMP) ## structural pruning over the model zoo; writes docs/reference/coverage.md
	$(BIN)/python -m benchmarks.coverage

reference: $(STAMP) ## write the generated reference pages again
	$(BIN)/python -m demiglace.cli.reference docs/reference

clean:
	rm -rf $(VENV) runs

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'demiglace needs Python 3.11 or later: make PYTHON=python3.11 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev]'
	touch $@
