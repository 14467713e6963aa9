# make run   fresh machine -> .venv with the base install -> the shipped policy runs the official course
# make test  fresh machine -> .venv-test with everything -> all checks and tests
# make train trains the walker from nothing (hours on a laptop's CPU; stops and continues)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
.PHONY: run test train clean

run: .venv/installed
	.venv/bin/barkour run

.venv/installed: setup.py
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -e .
	touch $@

# No code needs torch or ROS yet, so the lm and ros extras are left out. When lm comes in: `pip install torch==2.13.0`
# first, in a step of its own, so that the CPU build is taken.
.venv-test/installed: setup.py
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/pip install --quiet -e '.[train,dev]'
	touch $@

test: .venv-test/installed
	.venv-test/bin/ruff check .
	PATH="$(CURDIR)/.venv-test/bin:$$PATH" .venv-test/bin/lint-imports --no-logo
	.venv-test/bin/pyright --level error --pythonpath .venv-test/bin/python
	.venv-test/bin/python -m pytest

train: .venv-test/installed
	.venv-test/bin/barkour train walk --out runs/walk $$(test -d runs/walk/checkpoints && echo --resume)

clean:
	rm -rf .venv .venv-test build *.egg-info
