# Everything a user or a contributor types. `make help` lists it.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SOURCES := lrm components local feature_repo examples benchmarks tests docs pipeline.py
DATA   ?= complete-journey
# The model of DATA, by the name that its folder gives itself; built-in data that is not prepared yet is called DATA.
NAME    = $(shell $(BIN)/python -c 'import json, pathlib, sys; at = pathlib.Path(sys.argv[1], "dataset.json"); \
	print(json.loads(at.read_text())["name"] if at.is_file() else at.parent.name)' "$(DATA)")
# Where neither DATA nor NAME is given, a command takes the only model there is.
ABOUT   = $(if $(filter-out file,$(origin DATA) $(origin NAME)),--name "$(NAME)")
ARGS   ?=
IMAGE  ?= token-factory:dev
SERVE_IMAGE ?= token-factory-serve:dev
BASE   ?=
BUILD_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup data run serve report history status rollback approve test slow check docs format lint types compile image lock services services-stop clean reproduce prune faults watch backtest

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo '  options: make run DATA=ml-100k ARGS="--preset tiny"; what else ARGS can hold: make run ARGS=--help'

setup: $(STAMP)  ## make the virtual environment and install the pinned dependencies (the others do it on first use)

# pip installs torch, so that a CPU build offered to it (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS) is taken; uv is quick at the
# rest; where uv finds no way to the index, pip does that too.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "error: $(PYTHON) could not make a virtual environment; install Python 3.11 with its venv module" \
			"(Debian: apt install python3.11-venv), or name another one: make setup PYTHON=..." >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,dev]' || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

data: $(STAMP)  ## prepare the default data (make run does it on first use)
	$(BIN)/python -m lrm.features.datasets "$(DATA)"

# A verdict is no error of make: of the exit codes that tell verdicts apart (run --help) a person reads the words.
run: $(STAMP)  ## run the whole workflow on this machine
	@$(BIN)/python pipeline.py run --data "$(DATA)" $(ARGS) || { code=$$?; case $$code in 3|4) ;; *) exit $$code;; esac; }

serve: $(STAMP)  ## serve recommendations from the champion, as the registry names it now
	@$(BIN)/python -m lrm.serving --name "$(NAME)" $(ARGS)

history: $(STAMP)  ## say which version is in service, since when and why
	@$(BIN)/python pipeline.py history $(ABOUT) $(ARGS)

status: $(STAMP)  ## compare what serves with what should: make status ARGS="--server http://localhost:8000"
	@$(BIN)/python pipeline.py status $(ABOUT) $(ARGS)

rollback: $(STAMP)  ## put the champion before this one back in service: make rollback ARGS='--reason "returns rose"'
	@$(BIN)/python pipeline.py rollback $(ABOUT) $(ARGS)

approve: $(STAMP)  ## put a version in service that the gate kept: make approve ARGS='7 --reason "seen and agreed"'
	@$(BIN)/python pipeline.py approve $(ABOUT) $(ARGS)

reproduce: $(STAMP)  ## run a past run again and compare what comes out: make reproduce ARGS=20260101T120000-1a2b
	@$(BIN)/python pipeline.py reproduce $(or $(ARGS),latest)

prune: $(STAMP)  ## list what no champion, rollback target or pinned run needs; make prune ARGS=--yes removes it
	@$(BIN)/python pipeline.py prune $(ARGS)

faults: $(STAMP)  ## kill a run in each step, break its disk and its registry, and print what came of it (takes long)
	$(BIN)/python -m benchmarks.faults $(ARGS)

watch: $(STAMP)  ## retrain whenever there is new data: make watch ARGS="--every 1d"
	@$(BIN)/python pipeline.py watch --data "$(DATA)" $(ARGS)

backtest: $(STAMP)  ## simulate a year of retraining on past data, and show what came of it
	@$(BIN)/python pipeline.py backtest --data "$(DATA)" $(ARGS)

report:  ## open the last run's report, and name the page of all runs
	@test -f runs/latest/report.html || { echo "error: there is no report yet; make run writes one" >&2; exit 1; }
	@echo "$(CURDIR)/runs/latest/report.html"
	@ls -d $(CURDIR)/runs/trends/*.html 2>/dev/null || true
	@xdg-open runs/latest/report.html >/dev/null 2>&1 || true

services: $(STAMP)  ## start the real services that tests need (a bucket, MLflow, Redis, PostgreSQL); build/services.env says where
	@$(BIN)/python -m tests.services start

services-stop: $(STAMP)  ## stop them
	@$(BIN)/python -m tests.services stop

test: $(STAMP)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder tests/test_pipeline.py tests $(ARGS)

slow: $(STAMP)  ## run the tests that take minutes: runs that are killed, made again, watched
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow $(ARGS)

check: format lint types compile manifests docs test  ## everything that continuous integration checks

format: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)

lint: $(STAMP)
	$(BIN)/ruff check $(SOURCES)

types: $(STAMP)
	$(BIN)/mypy

compile: $(STAMP)  ## write build/pipeline.yaml for Kubeflow Pipelines
	@$(BIN)/python pipeline.py compile --image $(IMAGE)

manifests: $(STAMP)  ## render the manifests for a cluster into build/manifests, and check them
	@$(BIN)/python -m tests.manifests.check

docs: $(STAMP)  ## build the documentation site into build/site; open build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

image:  ## build the image of the workflow's steps and that of the server: make image BASE=python:3.11-slim-bookworm@sha256:...
	@case "$(BASE)" in *@sha256:*|localhost/*) ;; *) echo "error: name the base by digest, for a tag may lead to another" \
		"image tomorrow: make image BASE=docker.io/library/python:3.11-slim-bookworm@sha256:... (docker buildx imagetools" \
		"inspect docker.io/library/python:3.11-slim-bookworm prints it; an image that you built: BASE=localhost/...)," \
		"got BASE='$(BASE)'" >&2; exit 1;; esac
	docker build --target train --build-arg BASE=$(BASE) --tag $(IMAGE) $(BUILD_ARGS) .
	docker build --target serve --build-arg BASE=$(BASE) --tag $(SERVE_IMAGE) $(BUILD_ARGS) .

LOCKED := $(BIN)/uv pip compile --quiet --python-version 3.11.9 --python-platform linux --generate-hashes --no-header --no-annotate
lock: $(STAMP)  ## write locks/: every package of the images with its digests, as constraints.txt pins them
	$(LOCKED) --constraint constraints.txt --extra features --extra model --extra serving pyproject.toml --output-file locks/serve.txt
	$(LOCKED) --constraint constraints.txt --extra all pyproject.toml --output-file locks/train.txt
	$(LOCKED) locks/bom.in --output-file locks/bom.txt

clean:  ## remove what runs and checks left (not the environment, the data, or the model registry)
	rm -rf runs build .pytest_cache .mypy_cache .ruff_cache
