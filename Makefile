# Two commands: `make demo` and `make test`. Each sets itself up inside ignored folders of this repo.
PYTHON ?= python3
BIN := .venv/bin
# The tests are compiled once, not by each of their processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all ways pythons check compiled docs format lock upgrade hubs mutants fuzz audit bench chaos screenshot dist clean venv

demo: ## a real JupyterHub with simulated people, culled while you watch
	@$(PYTHON) tools/environment.py .venv-demo requirements/demo.txt
	@exec .venv-demo/bin/python -m hub_idle_exporter demo

# Six at once on two cores: most of the time a test waits for a Hub, a kernel or a browser.
PYTEST = TMPDIR="$(CURDIR)/.tmp" $(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder

test: venv ## style, types, layers, and all tests but the slow ones, with a third of the examples
	@$(MAKE) --no-print-directory -j2 check compiled
	EXAMPLES=few $(PYTEST) -m "not slow"

test-all: venv hubs ## everything, as CI runs it
	@$(MAKE) --no-print-directory -j2 check compiled
	$(PYTEST)

pythons: venv ## the exporter on every other Python that is available: unit tests, or TESTS=
	@EXAMPLES=few TMPDIR="$(CURDIR)/.tmp" $(BIN)/python tools/pythons.py $(TESTS)

ways: venv hubs ## each way in from nothing, as its page in docs/ says, and how long it takes
	@$(BIN)/python tools/ways_in.py

compiled: venv
	@mkdir -p .tmp
	@$(BIN)/python -m pytest --collect-only --quiet --quiet >.tmp/collected || (cat .tmp/collected; false)

check: venv docs ## style, types, layers, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: venv ## the documentation as a site in build/docs; a warning is an error
	@$(BIN)/python -m sphinx -E -a -W --keep-going -n -q -d build/doctrees docs build/docs

format: venv ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hubs: hub-3 hub-4 hub-5 hub-5.5 ## older JupyterHubs, for tests/real
hub-%:
	@$(PYTHON) tools/environment.py .venv-hub$* requirements/hub-$*.txt --no-project

mutants: venv ## remove each safety rule from the code in turn, and expect its test to fail
	@$(BIN)/python tools/mutants.py $(if $(WITHIN),--within=$(WITHIN))

MINUTES ?= 10
chaos: venv ## a real Hub in trouble: nobody at work is stopped, and what is counted is true
	@$(BIN)/python -m chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep $(KEEP))

fuzz: venv ## odd input from everywhere, many rounds: never a traceback, a hang, a stop
	@$(BIN)/python tools/fuzz.py $(MINUTES)

audit: ## known vulnerabilities of what is installed, and the list of it (build/sbom.json)
	@$(PYTHON) tools/environment.py .venv-audit requirements/audit.txt --no-project
	@.venv-audit/bin/python tools/audit.py

bench: ## cost, latency, drains: ours, the floor and jupyterhub-idle-culler in the same run
	@$(PYTHON) tools/environment.py .venv-bench requirements/bench.txt
	@.venv-bench/bin/python -m bench

screenshot: venv ## the pictures of README and docs; DASHBOARD_RENDER is the folder of a built renderer
	@$(BIN)/python tools/screenshot_page.py
	@$(BIN)/python tools/screenshot.py "$(DASHBOARD_RENDER)"

lock: ## write the lock files after a change of dependencies; other pins stay
	@$(PYTHON) tools/lock.py

upgrade: ## write the lock files with the newest version of everything
	@$(PYTHON) tools/lock.py --upgrade

venv:
	@$(PYTHON) tools/environment.py .venv requirements/dev.txt

dist: venv ## wheel and sdist in dist/, by the build backend of the lock file
	@rm -rf dist
	$(BIN)/python -m build --no-isolation

clean: ## remove every environment, cache and leftover
	rm -rf .venv* .cache .demo .tmp .hypothesis .pytest_cache .mypy_cache .ruff_cache build dist
