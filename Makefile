# make demo | test | test-all | lint | docs | bench. Each target installs what it needs into .venv, in the versions of
# requirements.lock, or with LOCK= in the newest ones. `make lock` writes that file anew.

PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Compile bytecode now, so that the first start of the page does not have to.
LOCK ?= --constraint requirements.lock
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(LOCK)

# Two processes; the tests of a file share one, and with it a running page.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-all lint docs bench lock chromium

demo: .venv/demo
	$(BIN)/python app.py

test: .venv/dev chromium
	$(PYTEST)

test-all: .venv/dev chromium
	$(PYTEST) -m "slow or not slow"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

docs: .venv/dev
	$(BIN)/python tools/make_docs.py

bench: .venv/dev
	$(BIN)/python benchmarks/train_speed.py

lock: $(BIN)/uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.10 --extra dev --no-annotate \
		--no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or later is required."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet $(LOCK) uv

.venv/demo: $(BIN)/uv pyproject.toml requirements.lock
	$(INSTALL) --editable '.[page,heic]'
	@touch $@

.venv/dev: $(BIN)/uv pyproject.toml requirements.lock
	$(INSTALL) --editable '.[dev]'
	@touch $@ .venv/demo

chromium:
	@command -v chromium >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
		else \
			echo "Chromium is not installed: browser tests will be skipped. Install it with: apt install chromium"; \
		fi; }
