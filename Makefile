# make demo · make test · make lint · make bench — each sets up all that it needs, in .venv

PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Bytecode is compiled now, so that the first start of the page does not have to.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python

.PHONY: demo test lint bench chromium

demo: .venv/demo
	$(BIN)/python app.py

test: .venv/dev chromium
	$(BIN)/python -m pytest

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/dev
	$(BIN)/python benchmarks/train_speed.py

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or later is needed, and none was found."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet uv

.venv/demo: $(BIN)/uv pyproject.toml requirements.txt
	$(INSTALL) --editable .
	@touch $@

.venv/dev: $(BIN)/uv pyproject.toml requirements.txt
	$(INSTALL) --editable '.[dev]'
	@touch $@ .venv/demo

chromium:
	@command -v chromium >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
		else \
			echo "No Chromium here: the browser tests will be skipped. Install it with: apt install chromium"; \
		fi; }
