# All commands of the project; `make help` lists them. Each set-up step writes a stamp file and runs only once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3.11
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/userrep
VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/bin/uv
UV_VERSION := 0.13.9
CONSTRAINTS := deploy/constraints/spark-4.2.txt
export PYSPARK_PYTHON := $(CURDIR)/$(BIN)/python
export UV_CACHE_DIR ?= $(CACHE)/uv
export USERREP_JARS ?= $(CACHE)/jars
JARS := $(VENV)/.jars$(subst /,-,$(USERREP_JARS))-done
# Container images often set this. Then each process, of which tests and runs start many, compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# HOROVOD_GPU_OPERATIONS=NCCL, in the environment or on the command line, builds Horovod for GPUs.
export HOROVOD_GPU_OPERATIONS ?=
HOROVOD := $(if $(HOROVOD_GPU_OPERATIONS),nccl,gloo)
comma := ,
# On a machine without a GPU, packages that torch imports only on GPUs (1.3 GB) are not installed.
CPU_ONLY := $(if $(HOROVOD_GPU_OPERATIONS)$(wildcard /dev/nvidia0),,--excludes deploy/gpu_only.txt)
PACKAGES := $(VENV)/.packages-$(if $(CPU_ONLY),cpu,gpu)-done

.PHONY: help setup install demo test test-fast test-all test-drawn durations cluster-test stream-test report-test compat-test \
    fault-test pair-test lint types format sizes bench bench-features bench-training bench-inference bench-joins bench-retraining \
    bench-streaming bench-pipeline results docs notebooks reference clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/%/NAME/; s/:.*## /\t/' | expand -t 16

# Each target installs what it needs, once.
DEV := $(VENV)/.dev-done
# What only the full tier needs.
FULL := $(VENV)/.airflow-done $(VENV)/.docs-done $(VENV)/.yarn-done
SERVERS := $(VENV)/.test-jars-done $(VENV)/.s3-server-done $(VENV)/.redis-done $(VENV)/.chromium-done

setup: $(DEV) $(VENV)/.horovod-$(HOROVOD)-done $(SERVERS)  ## install everything that `make test` needs; other targets run it themselves

install: $(VENV)/.horovod-$(HOROVOD)-done $(JARS)  ## install what production needs, including Horovod; used by the Dockerfile

demo: $(PACKAGES) $(JARS)  ## generated log -> served embeddings -> trained downstream model, in minutes
	@$(BIN)/userrep demo

# Tests have three tiers, described in tests/README.md. Files run in the order of tests/durations.json, the longest first.
# Each process has a Spark session and needs about 4 GB.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest --strict-skips
PARALLEL := -n $(TEST_PROCESSES) --no-loadscope-reorder
TESTS ?= tests

test: setup  ## run the fast and the default tier: 12 minutes on two cores
	@$(PYTEST) $(PARALLEL) -m "not full" $(TESTS)

test-fast: $(DEV)  ## run only tests without Spark or processes: 90 seconds; TESTS=tests/unit/joins/test_joins_ledger.py for some of them
	@$(PYTEST) $(if $(filter tests,$(TESTS)),$(PARALLEL)) -m "fast and not full" $(TESTS)

test-all: setup $(FULL)  ## run every test: an hour
	@$(PYTEST) $(PARALLEL) $(TESTS)

DRAW_SEED ?= $(shell git rev-parse HEAD)
test-drawn: setup $(FULL)  ## run five minutes of the tests that only `make test-all` runs, drawn by the commit's hash
	@files=$$($(BIN)/python -m tests.draw $(DRAW_SEED)); $(PYTEST) $(PARALLEL) -m full $$files

durations: setup $(FULL)  ## run every test and record its duration in tests/durations.json
	@$(PYTEST) $(PARALLEL) --record-durations

cluster-test: setup $(VENV)/.yarn-done  ## run the tests on a standalone cluster (one Master, two Workers) and on YARN
	@$(PYTEST) tests/system/cluster -vv

stream-test: setup  ## run the stream tests, with a real Kafka broker and a real Redis server
	@$(PYTEST) tests/system/test_kafka.py tests/system/test_restarts.py tests/system/test_services.py -vv

compat-test: setup  ## run tests/compat on Spark 4.0, 4.1 and 4.2, each in its environment; writes docs/platforms.md; SPARK=4.0 for one, SPARK=newest for a new PySpark
	@$(BIN)/python -m deploy.compat $(SPARK)

report-test: setup  ## test the report in a real Chromium
	@$(PYTEST) tests/system/test_report_browser.py -vv

fault-test: setup  ## kill commands at each failpoint, at timed and at random moments, and fill a disk: three hours; prints a table
	@USERREP_FAULTS=all $(PYTEST) tests/system/faults tests/system/cluster/test_executors.py -vv -s

SHARD ?= 1/1
pair-test: setup  ## run every pair of commands that change tables at the same time: hours; SHARD=1/8 for an eighth of the pairs
	@SHARD=$(SHARD) $(PYTEST) tests/system/faults/test_pairs.py tests/system/s3/test_s3_pairs.py -vv -s

# Rules that want type parameters and the type statement, which Python 3.11 lacks.
NEW_SYNTAX := UP040,UP046,UP047

lint: $(DEV)  ## check formatting, lint (for Python 3.11 and 3.13) and prose
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/ruff check --target-version py313 --ignore $(NEW_SYNTAX) .
	@$(BIN)/python -m tests.prose

types: $(DEV)  ## run mypy, strict on the package, for Python 3.11 and 3.13
	@$(BIN)/mypy
	@$(BIN)/mypy --python-version 3.13

format: $(DEV)  ## format the code and fix lint
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

sizes: $(DEV)  ## print lines of code, long functions and long files by folder of the package
	@$(BIN)/python -m tests.sizes

# Benchmarks print JSON lines on stdout. If one fails, the others still run, and make fails at the end.
BENCH_ARGS ?=
FEATURE_BENCHES := features-vs-duckdb features-vs-spark-sql refresh-vs-full late-day-vs-full backfill-7-vs-1 \
    features-growth features-skew tiles-vs-duckdb
TRAINING_BENCHES := training-vs-memory training-two-ranks reader-vs-pyarrow-dataset reader-vs-hf-datasets \
    reader-vs-torch-distributor training-start training-memory
INFERENCE_BENCHES := inference-vs-torch inference-vs-torch-script inference-vs-map-in-arrow inference-vs-pandas-udf \
    inference-vs-predict-batch-udf inference-vs-mlflow-spark-udf
JOIN_BENCHES := join-vs-duckdb join-growth join-into-fit join-vs-range join-vs-tempo join-vs-feast
RETRAINING_BENCHES := retraining-auc-loss
PIPELINE_BENCHES := pipeline-vs-script pipeline-vs-script-10m daily-vs-script item-vectors-sample
STREAMING_BENCHES := stream-latency stream-new-user stream-throughput stream-growth stream-kills
BENCHES := $(subst _,-,$(basename $(notdir $(shell grep -sl '^def measure' benchmarks/*.py))))
in_turn = @failed=; for name in $(1); do \
    $(MAKE) --no-print-directory bench-$$name || failed+=" $$name"; \
    done; [[ -z $$failed ]] || { echo "bench: failed:$$failed" >&2; exit 1; }

bench: setup  ## run all benchmarks, one JSON line each; BENCH_ARGS=--small for small data
	$(call in_turn,$(BENCHES))

bench-features: setup  ## run the benchmarks of tiles and features
	$(call in_turn,$(FEATURE_BENCHES))

bench-training: setup  ## run the benchmarks of the training and its reader
	$(call in_turn,$(TRAINING_BENCHES))

bench-inference: setup  ## run the benchmarks of the snapshot job
	$(call in_turn,$(INFERENCE_BENCHES))

bench-joins: setup  ## run the benchmarks of point-in-time joins
	$(call in_turn,$(JOIN_BENCHES))

bench-pipeline: setup  ## compare whole runs with scripts, and item vectors with those of a sample of the users
	$(call in_turn,$(PIPELINE_BENCHES))

bench-retraining: setup  ## measure what a retraining costs existing models, on Online Retail II: half an hour
	$(call in_turn,$(RETRAINING_BENCHES))

bench-streaming: setup  ## run the benchmarks of near real time, with their own Kafka broker and Redis server
	$(call in_turn,$(STREAMING_BENCHES))

bench-%: setup  ## run benchmarks/NAME.py (NAME with dashes); RECORD=1 keeps its lines for the results page
	@$(BIN)/python -m benchmarks.$(subst -,_,$*) $(BENCH_ARGS)

results: $(DEV)  ## write docs/results.md and a table in README.md from docs/results/*.json
	@$(BIN)/python -m benchmarks.results
	@$(BIN)/python -m benchmarks.readme_table

notebooks: setup  ## run notebooks/ on generated data and write them with outputs to docs/tutorials/notebooks
	@$(BIN)/python -m deploy.build_notebooks

docs: $(VENV)/.docs-done  ## build the documentation site in build/site; a warning or a broken link fails it
	@$(VENV)/docs/bin/sphinx-build -b html -c deploy/docs -W --keep-going -q . build/site
	@echo "docs: build/site/index.html"

reference: $(DEV)  ## generate docs/reference from the code
	@$(BIN)/python -m deploy.build_reference

clean:  ## remove everything that set-up and runs created here (the cache stays)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis userrep.egg-info \
	    spark-warehouse metastore_db derby.log

# The steps of the set-up. Each stamp depends on the files that determine what it installs.
install_packages = @$(UV) pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) $(CPU_ONLY)
install_extras = $(install_packages) --editable '.[$(1)]'

$(VENV)/.python-done: deploy/preflight.sh
	@PYTHON=$(PYTHON) bash deploy/preflight.sh
	@echo "setup: virtual environment"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(PACKAGES): $(VENV)/.python-done setup.py $(CONSTRAINTS) deploy/gpu_only.txt
	@echo "setup: packages (torch is large: minutes on a slow network)"
	$(call install_extras,all)
	@-$(UV) cache prune --quiet  # removes PySpark's source build, which some registries require: 900 MB
	@rm -f $(VENV)/.packages-*-done
	@touch $@

$(DEV): $(PACKAGES)
	@echo "setup: packages for development"
	$(call install_extras,dev)
	@touch $@

# Installing one kind removes the stamp of the other, so that switching back installs it again.
$(VENV)/.horovod-$(HOROVOD)-done: $(PACKAGES) deploy/build_horovod_wheel.sh deploy/preflight.sh
	@PYTHON=$(PYTHON) bash deploy/preflight.sh horovod
	$(call install_extras,build$(if $(HOROVOD_GPU_OPERATIONS),$(comma)nvcc)) cloudpickle psutil packaging setuptools wheel
	@PYTHON=$(BIN)/python bash deploy/build_horovod_wheel.sh $(CACHE)/wheels
	@$(UV) pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --no-index \
	    --no-deps --reinstall --find-links $(CACHE)/wheels/$(HOROVOD) horovod==0.28.1
	@rm -f $(VENV)/.horovod-*-done
	@touch $@

$(JARS): $(PACKAGES) deploy/fetch_jars.py deploy/build_class_archive.py userrep/spark/session.py userrep/spark/releases.py
	@$(BIN)/python -m deploy.fetch_jars sessions s3
	@$(BIN)/python -m deploy.build_class_archive
	@touch $@

# JARs of the Kafka broker that tests start.
$(VENV)/.test-jars-done: $(JARS)
	@$(BIN)/python -m deploy.fetch_jars broker
	@touch $@

$(VENV)/.yarn-done: $(JARS) deploy/fetch_jars.py
	@$(BIN)/python -m deploy.fetch_jars yarn
	@touch $@

# An S3-compatible server that tests start. It has its own environment, since its packages conflict with ours.
$(VENV)/.s3-server-done: $(PACKAGES) deploy/s3_server.txt
	@echo "setup: S3-compatible server"
	@$(UV) venv --quiet --clear --python $(BIN)/python $(VENV)/s3-server
	@$(UV) pip install --quiet --python $(VENV)/s3-server/bin/python --requirement deploy/s3_server.txt
	@touch $@

# Airflow, which only `make test-all` needs, to load the DAGs of deploy/airflow/: 200 MB.
$(VENV)/.airflow-done: $(PACKAGES) deploy/airflow/requirements.txt
	@echo "setup: Airflow"
	@$(UV) venv --quiet --clear --python $(BIN)/python $(VENV)/airflow
	@$(UV) pip install --quiet --python $(VENV)/airflow/bin/python --requirement deploy/airflow/requirements.txt
	@touch $@

# Sphinx, with its theme and parsers. It has its own environment, since no other command needs it.
$(VENV)/.docs-done: $(PACKAGES) deploy/docs/requirements.txt
	@echo "setup: Sphinx"
	@$(UV) venv --quiet --clear --python $(BIN)/python $(VENV)/docs
	@$(UV) pip install --quiet --python $(VENV)/docs/bin/python --requirement deploy/docs/requirements.txt
	@touch $@

$(VENV)/.redis-done: $(VENV)/.python-done deploy/debian_package.sh
	@bash deploy/debian_package.sh redis-server
	@touch $@

$(VENV)/.chromium-done: $(VENV)/.python-done deploy/debian_package.sh
	@bash deploy/debian_package.sh chromium
	@touch $@
