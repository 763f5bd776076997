# `make test` gets what the tests need and runs them all. `make lint` and `make build` are parts of it that stand alone.
# `make count` is the one of them that counts instructions, `make fuzz` the one that tries readers with faulty bytes. `make soak` is the longer form of one of the tests, and
# `make bench` measures what the README says of speed and memory,
# `make scale` what docs/scale.md begins with.

.PHONY: test lint count build fuzz soak bench scale
.DELETE_ON_ERROR:

# The system tests wait more than they work.
TEST_THREADS ?= 8

# How long `make soak` goes on, in seconds.
SOAK_S ?= 1800

# Where nothing has to be installed to run it; a static executable, as it is in an image.
MUSL = $(shell uname -m)-unknown-linux-musl

# The Go configbump, to measure it beside this one; empty: it is left out.
CONFIGBUMP_PEER ?=

RUN = KUBEBUILDER_ASSETS=$$(tests/servers/get) && traefik=$$(tests/servers/get traefik) && export KUBEBUILDER_ASSETS && \
	PATH="$$traefik:$$PATH:/usr/sbin"

test: lint
	@command -v unshare >/dev/null && command -v nsenter >/dev/null && command -v setpriv >/dev/null || \
		{ echo "make test: the tests need unshare, nsenter and setpriv: install util-linux" >&2; exit 1; }
	@[ "$$(id -u)" = 0 ] || \
		{ echo "make test: the tests are about PID namespaces and several users: run it as root" >&2; exit 1; }
	@PATH="$$PATH:/usr/sbin"; for program in nginx haproxy prometheus mandoc zsh fish mkfs.btrfs; do command -v $$program >/dev/null || \
		{ echo "make test: the tests need $$program: install nginx-light, haproxy, prometheus, mandoc, zsh, fish and btrfs-progs" >&2; exit 1; }; done
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || \
		{ echo "make test: the system tests need libfaketime: install faketime" >&2; exit 1; }
	$(RUN) RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked --no-fail-fast
	@$(MAKE) --no-print-directory count fuzz

count: cargo
	@command -v valgrind >/dev/null || { echo "make count: instructions are counted by valgrind: install valgrind" >&2; exit 1; }
	cargo bench --locked --profile counted --bench instructions

# Each reader of foreign bytes, for this long.
FUZZ_MS ?= 60000

fuzz: cargo
	BOLERO_RANDOM_TEST_TIME_MS=$(FUZZ_MS) BOLERO_RANDOM_ITERATIONS=1000000000 cargo test --locked --lib fuzz_

soak: cargo
	$(RUN) CONFIGBUMP_SOAK_S=$(SOAK_S) cargo test --locked --test system -- soak:: --nocapture

bench: BENCHED =
scale: BENCHED = -- scale
bench scale: cargo
	@for tool in curl musl-gcc; do command -v $$tool >/dev/null || \
		{ echo "make bench: it needs curl and musl-gcc: install curl and musl-tools" >&2; exit 1; }; done
	CC_$(subst -,_,$(MUSL))=musl-gcc cargo build --locked --release --target $(MUSL)
	KUBEBUILDER_ASSETS=$$(tests/servers/get) CONFIGBUMP_PEER=$(CONFIGBUMP_PEER) \
		CONFIGBUMP_RELEASED=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/$(MUSL)/release/configbump \
		cargo bench --locked --profile counted --bench peers $(BENCHED)

# What is not installed is named, not required: the tests stand for themselves.
lint: cargo
	@if cargo fmt --version >/dev/null 2>&1; then set -x; cargo fmt --check; \
		else echo "make lint: no cargo fmt: rustup component add rustfmt" >&2; fi
	@if cargo clippy --version >/dev/null 2>&1; then set -x; cargo clippy --locked --all-targets -- --deny warnings; \
		else echo "make lint: no cargo clippy: rustup component add clippy" >&2; fi
	@if cargo deny --version >/dev/null 2>&1; then set -x; cargo deny --locked check bans licenses sources; \
		else echo "make lint: no cargo deny: cargo install --locked cargo-deny" >&2; fi

build: cargo
	cargo build --locked --release

.PHONY: cargo
cargo:
	@command -v cargo >/dev/null || \
		{ echo "make: no cargo: install Rust $$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer from rustup.rs" >&2; exit 1; }
