# Everything sets itself up: a fresh machine needs python3 >= 3.11 with venv, and make.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/ready-$(shell cksum pyproject.toml 2>/dev/null | cut -d' ' -f1)
RUN := $(VENV)/bin/

.PHONY: demo test quick lint format setup clean headers

demo: setup
	$(RUN)edge-dsac demo

test: setup lint
	$(RUN)python -m firmware_bridge.header --check
	$(RUN)python -m pytest

quick: setup
	$(RUN)python -m pytest -m "not slow"

lint: setup
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy

format: setup
	$(RUN)ruff check --fix . ; $(RUN)ruff format .

headers: setup
	$(RUN)python -m firmware_bridge.header --write

setup: $(READY)

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "edge_dsac needs python3 >= 3.11: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "python's venv module is missing: apt-get install python3-venv"; exit 1; }
	@for tool in qemu-system-arm:qemu-system-arm qemu-aarch64-static:qemu-user-static minisign:minisign readelf:binutils; do \
	  command -v $${tool%%:*} >/dev/null || echo "note: $${tool%%:*} is missing, its tests will be skipped: apt-get install $${tool##*:}"; done
	@echo "setting up $(VENV) with $(PYTHON) (a few minutes, once)"
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(RUN)python -m pip install -q --disable-pip-version-check torch==2.13.0
	@$(RUN)python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@rm -f $(VENV)/ready-* && touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache demo
