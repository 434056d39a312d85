# Two commands matter: `make demo` runs the main job, `make test` proves it.
.PHONY: help setup demo demo-clean test check fmt lint test-fast test-chaos test-long bench bench-agent bench-ingest bench-mint mutate clean
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## virtual environment and Debian packages; seconds when there already
	@bash deploy/scripts/setup.sh

demo: setup ## meters to tokens on this machine; Ctrl-C or DEMO_SECONDS=n ends it
	@exec python -m demo

demo-clean: ## forget the demo's chain, ledger and keys
	@for place in var/demo var/demo-[0-9]; do \
	    [ ! -e $$place ] || flock -n $$place/lock rm -rf $$place || \
	    { echo "demo-clean: a demo is running in $$place; stop it first" >&2; exit 1; }; \
	done

test: ## everything: fast, integration, end to end, kills, browser; and how much that reaches
	@bash deploy/scripts/setup.sh test
	@mkdir -p var/coverage
	pytest -m "not long" -n 5 --dist loadgroup --reruns 1 --cov --cov-report=json:var/coverage/report.json
	python deploy/scripts/coverage_gate.py var/coverage/report.json

test-long: setup ## what takes minutes by itself: weeks and years of ten meters, every fault world
	pytest -m long

test-fast: setup ## the tests without services
	pytest -q -n 2

test-chaos: setup ## only the kills and fault worlds
	pytest -m chaos

lint: setup ## format check, lint, types, import contracts
	ruff format --check -q .
	ruff check -q .
	mypy --no-error-summary
	lint-imports --no-logo >/dev/null || lint-imports

check: lint ## before each commit: lint and the fast tests
	pytest -q -n 2

fmt: setup ## settle the layout
	ruff format -q .
	ruff check -q --fix .

mutate: setup ## change the money's code everywhere, and see a test fail each time
	bash deploy/scripts/mutate.sh

bench: setup ## measure; nothing here is asserted in a test
	python -m bench

# Writes what a bench printed, also of a missed floor, which then fails the target.
define measured
@mkdir -p var/bench
{ $(2); } > var/bench/$(1).jsonl; failed=$$?; \
    python -m bench.report < var/bench/$(1).jsonl; exit $$failed
endef

bench-agent: setup ## measure the agent (20 minutes), write docs/benchmarks.md
	$(call measured,agent,python -m bench agent)

STORED ?= 10000000
bench-ingest: setup ## broker to commit on both databases; then with STORED readings there (10 million)
	$(call measured,ingest,python -m bench.bench_ingest && python -m bench.bench_store $(STORED))

bench-mint: setup ## minted recipients per second and lamports, against a localnet
	$(call measured,mint,python -m bench.bench_mint)

clean: ## remove what was built, keep nothing of the demo
	rm -rf .venv var dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
