# One vocabulary for people, hooks and CI. Everything runs inside .venv, with the versions of constraints.txt.
PYTHON ?= python3.11
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

# Where a container's environment forbids bytecode, each process would compile a thousand modules again: half a minute.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install run dev new-model remove-model update test ci slow lint mutate format bench dashboards timeline screenshots clean

##@ Start
help: ## this list
	@sed -nE 's/^##@ (.*)/\n\1/p; s/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

# torch first, by its pinned version and by pip: anything that merely asks for "torch" may otherwise pull a CUDA build.
# The rest by uv, in a fifth of pip's time; pip steps in where an index is known to pip's configuration alone. Bytecode is
# made of what a run imports: most of what is installed is never imported.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e $(1) \
	|| { echo "uv could not install; pip tries, which takes longer" >&2; $(PIP) -c constraints.txt -e $(1); }

IMPORTED := definitions, runner, serving.scoring.service, dagster_mlflow, torch._dynamo, torch.export, mlflow.tracking, evidently, \
	xgboost.sklearn, matplotlib.figure, matplotlib.backends.backend_agg, sklearn.linear_model, scipy.stats, rich.table

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)" "$$(grep '^uv==' constraints.txt)"
	@$(call INSTALL,.)
	@$(BIN)/python -c "import $(IMPORTED)"
	touch $@

$(DEV_STAMP): $(STAMP)
	@$(call INSTALL,'.[dev]')
	touch $@

install: $(DEV_STAMP) ## install into .venv, with what the tests need

run: $(STAMP) ## the whole life of the fraud model, from raw payments to a resolved alert [UNTIL=2026-10-03 SIZE=published SEED=1]
	$(BIN)/assetline run $(if $(UNTIL),--until "$(UNTIL)") $(if $(SIZE),--size "$(SIZE)") $(if $(SEED),--seed "$(SEED)")

dev: $(STAMP) ## Dagster UI, MLflow UI, scoring service and alerts under one supervisor
	$(BIN)/assetline dev

##@ Models
new-model: $(STAMP) ## a model folder from a table: NAME=churn TABLE=path.csv TARGET=Churn [TIME=column KEY=column TASK=kind HEADER=line]
	@$(BIN)/assetline new-model --name "$(NAME)" --table "$(TABLE)" --target "$(TARGET)" \
		$(if $(TIME),--time "$(TIME)") $(if $(KEY),--key "$(KEY)") $(if $(TASK),--task "$(TASK)") \
		$(if $(HEADER),--header "$(HEADER)")

remove-model: $(STAMP) ## remove a model folder and the tests that stand on it: NAME=fraud [FORCE=1]
	@$(BIN)/assetline remove-model --name "$(NAME)" $(if $(FORCE),--force)

update: $(STAMP) ## bring a newer template into this fork: [FROM=address REF=main BASE=commit]
	@$(BIN)/assetline update $(if $(FROM),--from "$(FROM)") $(if $(REF),--ref "$(REF)") $(if $(BASE),--base "$(BASE)")

##@ Tests
test: $(DEV_STAMP) ## the tests that need PyPI alone, in two processes: [JOBS=2]
	$(BIN)/python -m pytest -q -m "not slow" -n $(JOBS) --dist loadfile

slow: $(DEV_STAMP) ## the kill matrix, the browser, the real servers
	$(BIN)/python -m pytest -q -m slow

lint: $(DEV_STAMP) ## ruff (lint and format), mypy, the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

mutate: $(DEV_STAMP) ## faults put into the modules that decide, one at a time: docs/mutation.md [MODULE=path JOBS=2]
	$(BIN)/python -m tests.mutation --jobs $(JOBS) $(MODULE)

format: $(DEV_STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci: lint test slow ## everything but the benches; .ci/run calls `make run` and `make test` first

bench: $(DEV_STAMP) ## every speed and quality claim, as ratios measured in one run
	$(BIN)/python -m benchmarks

##@ Pictures and state
dashboards: $(DEV_STAMP) ## Grafana's dashboards, from deploy/grafana/dashboards.py
	$(BIN)/python -m deploy.grafana.dashboards

timeline: $(DEV_STAMP) ## thirty lived days with injected drifts and a broken feed, drawn into docs/images
	$(BIN)/python -W ignore -m docs.timeline

screenshots: $(DEV_STAMP) ## the README's pictures, from the real UI (needs chromium)
	$(BIN)/python -m docs.screenshots

clean: ## remove all state, keep the installation
	rm -rf var
