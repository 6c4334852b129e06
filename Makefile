# One vocabulary for people, hooks and CI. Everything runs inside .venv, with the versions of constraints.txt.
PYTHON ?= python3.11
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install run dev new-model remove-model update test ci slow lint mutate format bench dashboards timeline screenshots clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# torch first and by its pinned version: anything that merely asks for "torch" may otherwise pull a CUDA build.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: $(STAMP) ## install into .venv

run: $(STAMP) ## the whole life of the fraud model, from raw payments to a resolved alert
	$(BIN)/assetline run

dev: $(STAMP) ## Dagster UI, MLflow UI, scoring service and alerts under one supervisor
	$(BIN)/assetline dev

new-model: $(STAMP) ## a model folder from a table: NAME=churn TABLE=path.csv TARGET=Churn [TIME=column KEY=column TASK=kind]
	@$(BIN)/assetline new-model --name "$(NAME)" --table "$(TABLE)" --target "$(TARGET)" \
		$(if $(TIME),--time "$(TIME)") $(if $(KEY),--key "$(KEY)") $(if $(TASK),--task "$(TASK)")

remove-model: $(STAMP) ## remove a model folder and the tests that stand on it: NAME=fraud [FORCE=1]
	@$(BIN)/assetline remove-model --name "$(NAME)" $(if $(FORCE),--force)

update: $(STAMP) ## bring a newer template into this fork: [FROM=address REF=main BASE=commit]
	@$(BIN)/assetline update $(if $(FROM),--from "$(FROM)") $(if $(REF),--ref "$(REF)") $(if $(BASE),--base "$(BASE)")

test: $(STAMP) ## the tests that need PyPI alone, in two processes: [JOBS=2]
	$(BIN)/python -m pytest -q -m "not slow" -n $(JOBS) --dist loadfile

slow: $(STAMP) ## the kill matrix, the browser, the real servers
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMP) ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutate: $(STAMP) ## faults put into the modules that decide, one at a time: docs/mutation.md [MODULE=path JOBS=2]
	$(BIN)/python -m tests.mutation --jobs $(JOBS) $(MODULE)

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci: lint test slow ## what .ci/run calls

bench: $(STAMP) ## every speed and quality claim, as ratios measured in one run
	$(BIN)/python -m benchmarks

dashboards: $(STAMP) ## Grafana's dashboards, from deploy/grafana/dashboards.py
	$(BIN)/python -m deploy.grafana.dashboards

timeline: $(STAMP) ## thirty lived days with injected drifts and a broken feed, drawn into docs/images
	$(BIN)/python -W ignore -m docs.timeline

screenshots: $(STAMP) ## the README's pictures, from the real UI (needs chromium)
	$(BIN)/python -m docs.screenshots

clean: ## remove all state, keep the installation
	rm -rf var
