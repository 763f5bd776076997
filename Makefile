# `make test` gets what the tests need and runs them all. `make lint` and `make build` are parts of it that stand alone.

.PHONY: test lint build
.DELETE_ON_ERROR:

# The system tests wait more than they work.
TEST_THREADS ?= 8

test: lint
	@command -v unshare >/dev/null && command -v setpriv >/dev/null || \
		{ echo "make test: the system tests need unshare and setpriv: install util-linux" >&2; exit 1; }
	@PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null && command -v haproxy >/dev/null || \
		{ echo "make test: the system tests need nginx and haproxy: install nginx-light and haproxy" >&2; exit 1; }
	KUBEBUILDER_ASSETS=$$(tests/servers/get) && export KUBEBUILDER_ASSETS && \
		PATH="$$PATH:/usr/sbin" RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked --no-fail-fast

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
