# Run `make` for what can be done here. Every recipe is a script or a cargo
# command that works by itself; nothing here needs root.

CARGO ?= cargo
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup pictures build demo test verify fix clean-downloads check-openclip bench-clip bench-tokens bench-data bench-orchestrator bench-gang chaos simulate fuzz etcd route-venv s3-venv chart test-outages study planted-bugs mutants

help: ## Show this
	@echo 'Clade: mixtures of CLIP data experts. Start with: make demo'
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'Prerequisites: Linux on x86-64, git, make, g++, pkg-config, python3 with pip and venv, Rust 1.95.'
	@echo 'Everything fetched lies in assets/ and data/, checked against deploy/setup/digests.txt.'

setup: ## Fetch libtorch, build tools, the sentence encoder and the CLIP vocabulary (once)
	@deploy/setup/prerequisites.sh
	@deploy/setup/libtorch.sh
	@deploy/setup/libjpeg.sh
	@deploy/setup/protoc.sh
	@deploy/setup/encoder.sh
	@deploy/setup/vocabulary.sh

pictures: setup build ## Fetch the demo's pictures and convert them to a dataset (once)
	@deploy/setup/pictures.sh
	@exec target/release/clade-clipart

build: setup ## Build every program, optimised
	@exec $(CARGO) build --release --workspace --bins

demo: setup pictures build ## Run the whole job on this machine; FRESH=1 starts over
	@exec target/release/clade up -f deploy/demo/run.yaml $(if $(filter 1,$(FRESH)),--fresh)

# One set of features for programs and tests: `--bins` alone would build tokio and all above it a second time.
# `--show-output` also prints what passing tests say, which is where `skipped: why` stands.
test: setup route-venv s3-venv etcd ## Run every test; what this machine lacks is printed as `skipped: why`
	@exec $(CARGO) build --workspace --bins --tests
	@exec $(CARGO) test --workspace -- --show-output

test-outages: etcd ## Take all of etcd down for a minute under three coordinators
	@exec env CLADE_TEST_OUTAGE_SECONDS=60 $(CARGO) test -p clade-coordinator --test failover -- --show-output all_of_etcd

check-openclip: ## Compare the bundle's models with open_clip itself (PyTorch, about 6 GB; BUNDLE=folder)
	@exec deploy/check-openclip/run.sh $(BUNDLE)

bench-clip: build ## Train beside open_clip, by turns, and print the ratios (PyTorch, about 6 GB; BENCH='--cases cpu')
	@exec deploy/bench/run.sh clip.py $(BENCH)

bench-tokens: setup ## Tokenize beside open_clip, on one core each, and print the ratio
	@$(CARGO) build --release -p clade-model --example tokens_speed
	@exec deploy/bench/run.sh tokens.py $(BENCH)

bench-data: build ## Load, index and shard beside webdataset and cp, by turns, and print the ratios (PyTorch, about 6 GB; BENCH='--only loader')
	@exec deploy/bench/run.sh data.py $(BENCH)

bench-orchestrator: build s3-venv etcd ## Measure the scheduler alone, 10,000 connected workers, and how soon a real cluster notices and goes on
	@target/release/clade-load decisions
	@target/release/clade-load connected
	@exec target/release/clade-arena marks

bench-gang: build ## Train on two ranks beside one with two threads, and with checkpoints beside none, by turns (BENCH='--preset tiny')
	@target/release/clade-load gang $(BENCH)
	@exec target/release/clade-load checkpoints --steps 64 --rounds 5

chaos: setup s3-venv etcd ## Play with a cluster of real processes (ROUNDS=10 SEED=1); the same run must end the same
	@$(CARGO) build --workspace --bins --tests
	@exec target/debug/clade-arena chaos --steps 600 --faults-for 90 --rounds $(or $(ROUNDS),10) --seed $(or $(SEED),1)

simulate: ## Play seeded worlds around the scheduler (SEEDS=20000; SEED=… for one, with its trace)
	@exec $(CARGO) run --quiet -p clade-sim -- $(if $(SEED),--seed $(SEED) --verbose,--seeds $(or $(SEEDS),20000) --keep-going)

study: ## Measure what failures cost on 1,024 GPUs, and how long queues of experts take (STUDY='--repeats 1 --traces 50')
	@exec $(CARGO) run --quiet -p clade-sim -- study $(STUDY)

planted-bugs: ## Plant bugs in the scheduler, one by one, and let the simulation find each (BUG='*quarantine*')
	@exec tests/sim/planted/run.sh $(if $(BUG),'$(BUG)')

mutants: ## Plant each small change in a copy of the scheduler, and list those that no test notices (hours; MUTANTS='--only placement')
	@exec $(CARGO) run --quiet -p clade-mutants -- $(MUTANTS)

fuzz: setup ## Fuzz the readers of tars and of indexes, a minute each (FUZZ_SECONDS=…)
	@fuzz/run.sh tar $(or $(FUZZ_SECONDS),60)
	@fuzz/run.sh index $(or $(FUZZ_SECONDS),60)

route-venv: .venv-route/.complete ## Make a small Python environment in which tests run route.py (once)

.venv-route/.complete: deploy/bundle/requirements.txt
	@python3 -m venv .venv-route
	@.venv-route/bin/pip install --quiet -r deploy/bundle/requirements.txt
	@cp deploy/bundle/requirements.txt $@

etcd: ## Fetch etcd, which tests of the coordinator start (once; 13 MB)
	@deploy/setup/etcd.sh

s3-venv: ## Install the S3 server that tests of the store start (once; 140 MB)
	@deploy/setup/s3.sh

verify: setup s3-venv route-venv etcd ## Check formatting, lints, docs and tests; writes nothing but target/
	@exec $(CARGO) fmt --all --check
	@exec $(CARGO) clippy --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS='-D warnings' exec $(CARGO) doc --workspace --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then exec $(CARGO) deny check; else echo 'skipped: cargo deny: it is not installed'; fi
	@if command -v shellcheck >/dev/null; then exec shellcheck -x deploy/setup/*.sh deploy/bench/*.sh deploy/gpu/*.sh charts/check/*.sh; else echo 'skipped: shellcheck: it is not installed'; fi
	@exec $(CARGO) build --workspace --bins --tests
	@exec $(CARGO) test --workspace

chart: ## Judge the Helm chart and the Dockerfiles, without a cluster (once: helm and linters, 260 MB)
	@deploy/setup/helm.sh
	@deploy/setup/chart.sh
	@charts/check/run.sh

fix: ## Format, and apply what clippy can repair by itself
	@exec $(CARGO) fmt --all
	@exec $(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

clean-downloads: ## Delete the cache of downloads; what was unpacked stays
	rm -rf assets/downloads
