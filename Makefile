# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
BENCH := .venv-bench
EXAMPLE := .venv-example
PORT ?= 3000
SEEDS ?= 20
DAYS ?= 30
FIRST ?= 0
PIN := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
	--no-emit-find-links
AUDIT := $(BIN)/pip-audit --strict --disable-pip --no-deps --progress-spinner off --requirement

.PHONY: help demo example test test-fast mutants simulate bench profile check fix ui lock docs pictures sbom audit browser broker clean

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(INSTALLED) ## Export a sample organization to a sample S3, through Dagster
	$(BIN)/m3ter-dagster demo

example: $(EXAMPLE)/installed ## dbt models behind the exports of the sample organization, compared to the cent (examples/revenue)
	cd examples/revenue && PATH="$(CURDIR)/$(EXAMPLE)/bin:$$PATH" sh -c "dbt --quiet parse && python run.py"

# Else each of many processes would compile the project and the tests again.
test test-fast mutants: export PYTHONDONTWRITEBYTECODE =

test: $(INSTALLED) ## All tests (those in a browser need `make browser` once, those with Celery `make broker`)
	$(BIN)/pytest -n 5 --dist loadfile --no-loadscope-reorder

test-fast: $(INSTALLED) ## The tests that start no server, no browser and no other program
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not servers and not slow" --hypothesis-profile fast

mutants: $(INSTALLED) ## Which changes of the code no test would notice (takes long; MUTANTS="m3ter_dagster.m3ter.token*" names some)
	$(BIN)/mutmut run $(MUTANTS)
	@$(BIN)/mutmut results | grep -v ': not checked$$' || true

simulate: $(INSTALLED) ## Months of exports with everything that may happen to them (SEEDS=20, FIRST=0, DAYS=30)
	$(BIN)/python -m simulation run --seeds $(SEEDS) --first $(FIRST) --days $(DAYS)

bench: $(INSTALLED) $(BENCH)/installed ## CPU and memory beside a script and dlt (OPTIONS="--rounds 1 --line-items 50000 ...")
	$(BIN)/python -m bench run --pipelines-python $(BENCH)/bin/python $(OPTIONS)

profile: $(INSTALLED) ## Where the CPU of a line item goes, stage by stage
	$(BIN)/python -m bench.stages $(OPTIONS)

check: export M3TER_BUCKET ?= any-bucket

check: $(INSTALLED) ## Lint, format, types, layers, definitions, vulnerabilities
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/ty check
	$(BIN)/lint-imports
	$(BIN)/m3ter-dagster check --without-environment
	$(BIN)/dagster definitions validate
	@if printf six==1.17.0 | $(AUDIT) /dev/stdin >/dev/null 2>&1; then $(MAKE) audit; \
		else echo "Vulnerabilities are not looked up: there is no data about them within reach."; fi

fix: $(INSTALLED) ## Repair what ruff can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

ui: $(INSTALLED) ## Dagster's UI over the sample organization, as new each time
	$(BIN)/m3ter-dagster sandbox -- $(BIN)/m3ter-dagster ui --port $(PORT)

lock: $(INSTALLED) ## Pin the newest allowed versions of everything: what exports need, and what else the work on them does
	$(PIN) --upgrade --all-extras pyproject.toml --output-file requirements-dev.lock
	$(PIN) --constraints requirements-dev.lock pyproject.toml --output-file requirements.lock
	$(PIN) --constraints requirements-dev.lock --extra gcs pyproject.toml --output-file requirements-gcs.lock
	$(PIN) --constraints requirements-dev.lock --extra gcs --extra signing --extra postgres --extra kubernetes \
		pyproject.toml --output-file deploy/requirements.lock
	$(PIN) --upgrade bench/requirements.in --output-file bench/requirements.lock
	$(PIN) --upgrade --extra sandbox --constraints requirements.lock pyproject.toml examples/revenue/requirements.in \
		--output-file examples/revenue/requirements.lock

pictures: $(INSTALLED) ## The pictures of the documentation, made anew by the tests in a browser
	mkdir -p docs/pictures
	M3TER_PICTURES=docs/pictures $(BIN)/pytest tests/test_ui.py

docs: $(INSTALLED) ## The documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

sbom: $(INSTALLED) ## What an installation consists of, as CycloneDX, in sbom.json
	PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml requirements.lock --output-file sbom.json

audit: $(INSTALLED) ## Known vulnerabilities of what requirements-dev.lock pins (asks the package index)
	$(AUDIT) requirements-dev.lock

browser: ## Debian's chromium, only for the tests in a browser (needs root)
	command -v chromium-headless-shell || command -v chromium || \
		{ apt-get update && apt-get install --yes --no-install-recommends chromium-headless-shell; }

broker: ## Debian's redis-server, only for the tests with Celery's workers (needs root)
	command -v redis-server >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends redis-server; }

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(BENCH) $(EXAMPLE) demo-output site sbom.json bench-result.md bench-growth.md mutants .pytest_cache .ruff_cache .hypothesis

$(INSTALLED): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement $<
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(BENCH)/installed: bench/requirements.lock
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement $<
	touch $@

$(EXAMPLE)/installed: examples/revenue/requirements.lock pyproject.toml $(INSTALLED)
	$(PYTHON) -m venv $(EXAMPLE)
	$(BIN)/uv pip install --quiet --python $(EXAMPLE)/bin/python --require-hashes --no-deps --requirement $<
	$(BIN)/uv pip install --quiet --python $(EXAMPLE)/bin/python --no-deps --no-build-isolation --editable .
	touch $@
