# Everything that is run in this repository. `make help` lists it.
# Needs nothing but make and Python >= 3.11; the rest is installed into .venv.

PORT ?= 8000
# For example PYTHON=python3.12. Otherwise the newest that is found.
PYTHON ?=
# Options of the benchmark, for example ARGS="--only launch --rounds 3".
ARGS ?=

# Newest first: the first that is found is what .venv is made with.
VERSIONS := 3.14 3.13 3.12 3.11
VENV := .venv
BIN := $(VENV)/bin
# More than there are cores: most tests wait for a process or a clock.
JOBS ?= 4
# What is left goes to who is free; neighbours stay together, with what they start once.
PYTEST := pytest --numprocesses $(JOBS) --dist worksteal
COLOR := $(if $(MAKE_TERMOUT),--color=yes)

# An interpreter that is new enough and can make virtual environments: on Debian the
# second is a package of its own, under pyenv a command may exist and not work.
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

# djasgi itself reads PORT, and then listens on all interfaces.
unexport PORT
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run test test-all test-lowest test-django test-live test-ws test-projects soak format docs bench clean

help: ## list the targets
	@echo 'make run [PORT=8001] [PYTHON=python3.12]'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | \
	  while IFS='|' read -r name text; do printf '  %-13s %s\n' "$$name" "$$text"; done

run: $(VENV)/.installed ## serve examples/minimal on http://127.0.0.1:8000
	cd examples/minimal && exec '../../$(BIN)/djasgi' serve --port $(PORT)

test: $(VENV)/.installed-dev ## format, lint, types, import contracts, stale docs, tests, coverage
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/cog --check README.md
	$(BIN)/coverage erase
	@bash -o pipefail -c '$(BIN)/coverage run -m $(PYTEST) $(COLOR) | tee $(VENV)/pytest.log' || { \
	  echo 'Once more, one at a time, what has failed on the busy machine:'; \
	  bash -o pipefail -c '$(BIN)/coverage run -m pytest $(COLOR) --last-failed --last-failed-no-failures none | tee $(VENV)/pytest.log'; }
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	@tail -n 1 $(VENV)/pytest.log

test-all: ## the tests on every interpreter that is here, and with the oldest dependencies
	@failed=; missing=; \
	for version in $(VERSIONS); do \
	  if python$$version -c '$(SUITABLE)' 2>/dev/null; then \
	    $(MAKE) --no-print-directory test-$$version || failed="$$failed $$version"; \
	  elif command -v python$$version >/dev/null; then \
	    missing="$$missing $$version (there, but does not start)"; \
	  else \
	    missing="$$missing $$version"; \
	  fi; \
	done; \
	case "$$missing" in \
	  *3.11*) echo 'oldest dependencies: not tested, they need python3.11' ;; \
	  *) $(MAKE) --no-print-directory test-lowest || failed="$$failed lowest" ;; \
	esac; \
	echo "not tested, no such interpreter:$${missing:- none}"; \
	echo "failed:$${failed:- none}"; \
	test -z "$$failed"

test-3.%: .venv-3.%/.installed
	@echo "Python 3.$*: $$(.venv-3.$*/bin/python -m django --version | sed 's/^/Django /')"
	.venv-3.$*/bin/python -m $(PYTEST) -m ''

test-lowest: .venv-lowest/.installed ## the tests on Python 3.11 with the oldest dependencies
	@echo "Python 3.11, oldest dependencies:"
	.venv-lowest/bin/python -m pip list --disable-pip-version-check
	.venv-lowest/bin/python -m $(PYTEST) -m ''

test-django: $(VENV)/.installed ## Django's own suite with djasgi's handler and without
	$(BIN)/python -m tests.django.run $(ARGS)

test-live: $(VENV)/.installed ## Django's own live-server tests on the three servers
	$(BIN)/python -m tests.live.run $(ARGS)

test-ws: $(VENV)/.installed-dev ## Autobahn's websocket suite on the three servers (needs python2.7)
	$(BIN)/python -m tests.live.autobahn $(ARGS)

test-projects: $(VENV)/.installed-dev ## real projects' pages and tests with djasgi's handler and without
	$(BIN)/python -m tests.real.run $(ARGS)

soak: $(VENV)/.installed-dev ## workers killed, blocked and replaced for long, and counts (SOAK_SECONDS, SOAK_SEED, SOAK_TIMES)
	SOAK_SECONDS=$(or $(SOAK_SECONDS),60) SOAK_SEED=$(SOAK_SEED) SOAK_TIMES=$(or $(SOAK_TIMES),200) \
	  $(BIN)/pytest -s tests/process/test_chaos.py tests/process/test_leaks.py
	SOAK_REQUESTS=10000 $(BIN)/pytest -s tests/conformance/test_threads.py -k leave_nothing_behind
	DJASGI_EXAMPLES=$(or $(EXAMPLES),20000) $(BIN)/pytest tests/differential --timeout 36000

format: $(VENV)/.installed-dev ## format, and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev ## write the generated tables of the README anew
	$(BIN)/cog -r README.md

bench: $(VENV)/.installed ## djasgi beside the native commands (needs wrk, and PostgreSQL for some rows)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m tests.bench.run $(ARGS)

clean: ## remove what these targets made
	rm -rf .venv .venv-* build dist .coverage .coverage.* .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp says that what pyproject.toml asks for is installed.

$(VENV)/.installed: pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo 'Setting up $(VENV), once'; \
	  for python in $(or $(PYTHON),$(VERSIONS:%=python%) python3); do \
	    if "$$python" -c '$(SUITABLE)' 2>/dev/null; then \
	      exec "$$python" -m venv --clear $(VENV); \
	    fi; \
	  done; \
	  echo 'Error: no Python >= 3.11 that has the module venv. Here: '"$$($(or $(PYTHON),python3) --version 2>&1 | head -n 1)" >&2; \
	  echo 'Install one (Debian: apt-get install python3-venv), or name it: make PYTHON=python3.12' >&2; \
	  exit 1; \
	}
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

.venv-3.%/.installed: pyproject.toml
	python3.$* -m venv .venv-3.$*
	.venv-3.$*/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-3.$*/bin/python -m pip install --quiet --upgrade --editable . --group test
	@touch $@

# pip only knows how to resolve to the newest.
.venv-lowest/.installed: pyproject.toml
	python3.11 -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
	  --resolution lowest-direct --editable . --group test
	@touch $@
