# One place for every command; `make help` lists them. Set-up steps leave stamps, so nothing runs twice.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3.11
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/userrep
VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/bin/uv
UV_VERSION := 0.13.9
export PYSPARK_PYTHON := $(CURDIR)/$(BIN)/python
export UV_CACHE_DIR ?= $(CACHE)/uv
export USERREP_JARS ?= $(CACHE)/jars

# HOROVOD_GPU_OPERATIONS=NCCL, in the environment or on the command line, gives the wheel for GPUs.
export HOROVOD_GPU_OPERATIONS ?=
HOROVOD := $(if $(HOROVOD_GPU_OPERATIONS),nccl,gloo)
comma := ,

.PHONY: help setup install demo test cluster-test stream-test report-test fault-test lint types format bench bench-features \
    bench-training bench-inference bench-joins bench-retraining bench-streaming notebooks reference clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/%/NAME/; s/:.*## /\t/' | expand -t 16

setup: $(VENV)/.setup-done  ## everything the other targets need: .venv, Horovod, JARs, Redis, Chromium

install: EXTRAS := build,streaming$(if $(HOROVOD_GPU_OPERATIONS),$(comma)nvcc)
install: $(VENV)/.horovod-$(HOROVOD)-done $(VENV)/.jars-done  ## what runs need, without what tests need: Dockerfile

demo: setup  ## generated log -> served embeddings -> trained downstream model, in minutes
	@$(BIN)/userrep demo

# Each process has a Spark session of two threads, and some 4 GB. Files go in order: those on the cluster, which take
# longest, first.
TEST_PROCESSES ?= 2
test: setup  ## all tests
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

cluster-test: setup  ## the tests on a real standalone cluster, started for them: one Master, two Workers
	@$(BIN)/python -m pytest tests/cluster -vv

stream-test: setup  ## the tests on a real Kafka broker and a real Redis server, started for them
	@$(BIN)/python -m pytest tests/streaming -vv

report-test: setup  ## the tests of the report, its page in a real Chromium
	@$(BIN)/python -m pytest tests/report -vv

fault-test: setup  ## every fault: commands killed at each point and by the clock, a full disk; two hours or so, a table at the end
	@USERREP_FAULTS=all $(BIN)/python -m pytest tests/faults tests/cluster/test_executors.py -vv -s

lint: setup  ## formatting and lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: setup  ## mypy, strict on the package
	@$(BIN)/mypy

format: setup  ## rewrite in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Each prints JSON lines on stdout. One that fails does not keep the others from running; make fails at the end.
BENCH_ARGS ?=
FEATURE_BENCHES := features-vs-duckdb features-vs-spark-sql refresh-vs-full late-day-vs-full backfill-7-vs-1 \
    features-growth features-skew tiles-vs-duckdb
TRAINING_BENCHES := training-vs-memory training-two-ranks reader-vs-pyarrow-dataset reader-vs-hf-datasets \
    reader-vs-petastorm reader-vs-torch-distributor training-start training-memory
INFERENCE_BENCHES := inference-vs-torch inference-vs-pandas-udf inference-vs-predict-batch-udf \
    inference-vs-mlflow-spark-udf
JOIN_BENCHES := join-vs-duckdb join-growth join-vs-range join-vs-tempo join-vs-feast
RETRAINING_BENCHES := retraining-auc-loss
STREAMING_BENCHES := stream-latency stream-new-user stream-throughput stream-growth stream-kills
BENCHES := $(subst _,-,$(basename $(notdir $(shell grep -sl '^def measure' benchmarks/*.py))))
in_turn = @failed=; for name in $(1); do \
    $(MAKE) --no-print-directory bench-$$name || failed+=" $$name"; \
    done; [[ -z $$failed ]] || { echo "bench: failed:$$failed" >&2; exit 1; }

bench: setup  ## all benchmarks, a JSON line each; BENCH_ARGS=--small for a quick look
	$(call in_turn,$(BENCHES))

bench-features: setup  ## the benchmarks of tiles and features
	$(call in_turn,$(FEATURE_BENCHES))

bench-training: setup  ## the benchmarks of the trainer and its reader
	$(call in_turn,$(TRAINING_BENCHES))

bench-inference: setup  ## the benchmarks of the snapshot job
	$(call in_turn,$(INFERENCE_BENCHES))

bench-joins: setup  ## the benchmarks of point-in-time joins
	$(call in_turn,$(JOIN_BENCHES))

bench-retraining: setup  ## what a retraining costs existing models, on Online Retail II: half an hour
	$(call in_turn,$(RETRAINING_BENCHES))

bench-streaming: setup  ## the benchmarks of near real time, on a broker and a Redis server of their own
	$(call in_turn,$(STREAMING_BENCHES))

bench-%: setup  ## one benchmark: a file of benchmarks/, with dashes
	@$(BIN)/python -m benchmarks.$(subst -,_,$*) $(BENCH_ARGS)

notebooks: setup  ## run notebooks/ on generated data and keep them in docs/notebooks, with outputs and pictures
	@$(BIN)/python -m deploy.build_notebooks

reference: setup  ## make docs/reference of the code
	@$(BIN)/python -m deploy.build_reference

clean:  ## remove what set-up and runs made here (the cache stays)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis userrep.egg-info

# The set-up, step by step. Each stamp names what it depends on.
$(VENV)/.python-done: deploy/preflight.sh
	@PYTHON=$(PYTHON) bash deploy/preflight.sh
	@echo "setup: virtual environment"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

EXTRAS ?= dev
$(VENV)/.packages-done: $(VENV)/.python-done setup.py constraints.txt
	@echo "setup: packages (torch is large: minutes on a first run)"
	@$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt \
	    --editable '.[$(EXTRAS)]' cloudpickle psutil packaging setuptools wheel
	@touch $@

# Each of the two has its stamp and takes the other's away, so that changing one's mind installs the other.
$(VENV)/.horovod-$(HOROVOD)-done: $(VENV)/.packages-done deploy/build_horovod_wheel.sh
	@PYTHON=$(BIN)/python bash deploy/build_horovod_wheel.sh $(CACHE)/wheels
	@$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --no-index \
	    --no-deps --reinstall --find-links $(CACHE)/wheels/$(HOROVOD) horovod==0.28.1
	@rm -f $(VENV)/.horovod-*-done
	@touch $@

# An S3-compatible server that tests start. It wants packages that ours cannot live with: an environment of its own.
$(VENV)/.s3-server-done: $(VENV)/.packages-done deploy/s3_server.txt
	@$(UV) venv --quiet --clear --python $(BIN)/python $(VENV)/s3-server
	@$(UV) pip install --quiet --python $(VENV)/s3-server/bin/python --requirement deploy/s3_server.txt
	@touch $@

# Airflow, with which tests load the DAGs of deploy/airflow/: 200 MB that nothing else needs.
$(VENV)/.airflow-done: $(VENV)/.packages-done deploy/airflow/requirements.txt
	@$(UV) venv --quiet --clear --python $(BIN)/python $(VENV)/airflow
	@$(UV) pip install --quiet --python $(VENV)/airflow/bin/python --requirement deploy/airflow/requirements.txt
	@touch $@

$(VENV)/.jars-done: $(VENV)/.packages-done deploy/fetch_jars.py userrep/session.py
	@$(BIN)/python deploy/fetch_jars.py
	@touch $@

# For tests and benchmarks alone: where it cannot be installed, the tests that need it are skipped.
$(VENV)/.redis-done: $(VENV)/.python-done deploy/redis_server.sh
	@bash deploy/redis_server.sh
	@touch $@

$(VENV)/.chromium-done: $(VENV)/.python-done deploy/chromium.sh
	@bash deploy/chromium.sh
	@touch $@

# Pruned, as a registry that lets nothing be kept has PySpark built from its source release by each set-up: 900 MB.
$(VENV)/.setup-done: $(VENV)/.packages-done $(VENV)/.horovod-$(HOROVOD)-done $(VENV)/.s3-server-done \
    $(VENV)/.airflow-done $(VENV)/.jars-done $(VENV)/.redis-done $(VENV)/.chromium-done
	@-$(UV) cache prune --quiet
	@touch $@
