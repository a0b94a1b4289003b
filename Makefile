# make run: train the demo.  make test: every test, linter and type check.  PYTHON= names the Python to use.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv/bin
# Quick when .venv is right already (a stamp is compared, no pip); else it installs and shows its progress.
ready = command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "finetui: there is no $(PYTHON) here, and Python 3.11, 3.12 or 3.13 is needed." >&2; exit 1; }; \
	"$(PYTHON)" -ES -m bootstrap

.PHONY: run test check screenshots bench clean

run:
	@$(ready) && exec $(VENV)/finetui demo

test: check
	@command -v tmux >/dev/null 2>&1 || { \
	  echo "finetui: the tests drive a real terminal and need tmux (apt install tmux, brew install tmux)." >&2; exit 1; }
	$(VENV)/python -m pytest -n $$(($$(nproc) + 1)) --maxprocesses 4 --dist loadfile

check:
	@$(ready) --dev
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	PYTHONPATH=.venv/link $(VENV)/lint-imports
	$(VENV)/basedpyright

screenshots:
	@$(ready) --dev && exec $(VENV)/python -m tests.screenshots

bench:
	@$(ready) --dev && exec $(VENV)/python -m tests.bench

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find core tui tests bootstrap -name __pycache__ -type d -prune -exec rm -rf {} +
