# make demo   the story: payments that survive kill -9 of the leading replica (KEEP=1 leaves everything running)
# make test   all tests, on a fresh Debian machine too
# make bench  figures, optimised, on a machine that should have nothing else to do (JSON=file keeps them)
# make lint   format, clippy, dependencies
# make man    man pages and shell completions of all three programs, into target/man and target/completions

CARGO ?= cargo
SCRIPTS := deploy/local/scripts
NEXTEST := $(shell command -v cargo-nextest)
BUILT := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help system bitcoind moto build demo test bench lint man clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# Debian packages, where any is missing.
system:
	@$(SCRIPTS)/system.sh

# A bitcoind: from PATH, or built once into the user's cache directory.
bitcoind: system
	@$(SCRIPTS)/bitcoind.sh >/dev/null

# A moto_server, which stands in for AWS: installed once into the user's cache directory.
moto: system
	@$(SCRIPTS)/moto.sh >/dev/null

build: system
	$(CARGO) build --workspace --bins

demo: bitcoind build
	@$(BUILT)/debug/holdfast-demo $(if $(KEEP),--keep)

# Programs and tests are built in one go: the tests run the programs that lie beside them.
test: bitcoind moto
	$(CARGO) build --workspace --all-targets
ifdef NEXTEST
	$(CARGO) nextest run --workspace
	$(CARGO) test --workspace --doc
else
	$(CARGO) test --workspace
endif

# No part of the tests: it measures and asserts nothing.
bench: bitcoind moto
	$(CARGO) build --release --workspace --bins
	@$(BUILT)/release/holdfast-bench $(if $(JSON),--json $(abspath $(JSON)))
	@echo 'Durable signatures of counterparty commitments over mutual TLS'
	@$(CARGO) bench --quiet --package holdfast-signer --bench signatures
	@echo 'Custody: a start, signatures and ECDH of every backend'
	@$(CARGO) bench --quiet --package holdfast-signer --bench custody

lint: system
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
	$(SCRIPTS)/cargo-deny.sh
	@if command -v promtool >/dev/null; then cd deploy/monitoring && promtool check rules alerts.yml && promtool test rules alerts_test.yml; fi
	@echo 'one TLS stack in what runs in earnest: ring comes with the independent node of the tests only'
	@! $(CARGO) tree --quiet --locked --package holdfast-node --package holdfast-signer --edges normal --invert ring 2>/dev/null | grep .

man: build
	@for program in holdfast holdfast-node holdfast-signer; do \
		$(BUILT)/debug/$$program man --dir $(BUILT)/man || exit 1; \
		for shell in bash zsh fish; do \
			mkdir -p $(BUILT)/completions/$$shell; \
			$(BUILT)/debug/$$program completions $$shell >$(BUILT)/completions/$$shell/$$program || exit 1; \
		done; \
	done
	@echo '$(BUILT)/man, $(BUILT)/completions'

clean:
	$(CARGO) clean
