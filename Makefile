# make test      installs what the tests need (tests/setup) and runs them all; `lint`, `count` (instructions), and `fuzz` are parts of it that
#                stand alone, and `soak` is the longer form of two of the tests
# make build     builds the executable; `static` that of an image, `image` the image
# make install   puts it, its manual page and its completions below PREFIX (and DESTDIR before that, for packages)
# make bench     measures what the README says of speed and memory, `scale` what docs/scale.md begins with

.PHONY: test lint count build fuzz soak bench scale static image install release-check release-notes
.DELETE_ON_ERROR:

# The system tests wait more than they work.
TEST_THREADS ?= 8

# How long `make soak` goes on, in seconds.
SOAK_S ?= 1800

# What the image is for: amd64 or arm64.
HOST := $(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(shell uname -m)))
ARCH ?= $(HOST)

# A static executable, as it is in an image. Its C code, which is ring's, is compiled for musl, or by what Debian has for another
# architecture; it calls nothing of a C library that is not the same in both.
CPU = $(patsubst arm64,aarch64,$(patsubst amd64,x86_64,$(ARCH)))
MUSL = $(CPU)-unknown-linux-musl
MUSL_VARIABLES = CARGO_TARGET_$(shell echo $(MUSL) | tr a-z- A-Z_)
ifeq ($(ARCH),$(HOST))
MUSL_CC = musl-gcc
MUSL_CC_PACKAGE = musl-tools
else
MUSL_CC = $(CPU)-linux-gnu-gcc
MUSL_CC_PACKAGE = gcc-$(subst _,-,$(CPU))-linux-gnu
MUSL_LINKER = $(MUSL_VARIABLES)_LINKER=$(MUSL_CC)
IMAGE_SUFFIX = -$(ARCH)
endif
MUSL_BUILD = CC_$(subst -,_,$(MUSL))=$(MUSL_CC) $(MUSL_LINKER) cargo build --locked --target $(MUSL)
MUSL_BUILT = $${CARGO_TARGET_DIR:-$(CURDIR)/target}/$(MUSL)

# What the image is called, and what builds it. Of docker there may be no more than the client.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
IMAGE ?= configbump:$(VERSION)$(IMAGE_SUFFIX)
IMAGE_BUILDER = $(shell command -v podman || command -v buildah || { docker info >/dev/null 2>&1 && command -v docker; })

# Where the servers and the programs that are measured write: into memory, for a disk is slower than all of them, and less even.
BENCH_DIR ?= /dev/shm

# The Go configbump, to measure it beside this one; empty: it is left out.
CONFIGBUMP_PEER ?=

RUN = KUBEBUILDER_ASSETS=$$(tests/servers/get) && traefik=$$(tests/servers/get traefik) && \
	kustomize=$$(tests/servers/get kustomize) && export KUBEBUILDER_ASSETS && \
	PATH="$$traefik:$$kustomize:$$PATH:/usr/sbin"

test:
	@tests/setup
	@$(MAKE) --no-print-directory lint musl
	CARGO_PROFILE_DEV_DEBUG=0 $(MUSL_BUILD)
	$(RUN) CONFIGBUMP_STATIC=$(MUSL_BUILT)/debug/configbump RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked --no-fail-fast
	@$(MAKE) --no-print-directory count fuzz

count: cargo
	@command -v valgrind >/dev/null || { echo "make count: instructions are counted by valgrind: install valgrind" >&2; exit 1; }
	cargo bench --locked --profile counted --bench instructions

# Each reader of foreign bytes, for this long.
FUZZ_MS ?= 60000

fuzz: cargo
	BOLERO_RANDOM_TEST_TIME_MS=$(FUZZ_MS) BOLERO_RANDOM_ITERATIONS=1000000000 cargo test --locked --lib fuzz_

soak: cargo
	$(RUN) CONFIGBUMP_SOAK_S=$(SOAK_S) cargo test --locked --test system -- soak:: random:: --include-ignored --nocapture

bench: BENCHED =
scale: BENCHED = -- scale
bench scale: static
	@command -v curl >/dev/null || { echo "make bench: it needs curl: install curl" >&2; exit 1; }
	TMPDIR=$(BENCH_DIR) KUBEBUILDER_ASSETS=$$(tests/servers/get) CONFIGBUMP_PEER=$(CONFIGBUMP_PEER) \
		CONFIGBUMP_RELEASED=$(MUSL_BUILT)/release/configbump \
		cargo bench --locked --profile counted --bench peers $(BENCHED)

# The addresses that are set at the start take 0.3 MB less, in the file and in memory, where Rust's musl can read them so: it
# is 1.2.5 from Rust 1.93 on.
PACKED = $(shell rustc --version | awk -F '[ .]' '$$3 >= 93 { print ",-z,pack-relative-relocs" }')

static: musl
	$(MUSL_VARIABLES)_RUSTFLAGS="-C link-arg=-Wl,--no-eh-frame-hdr,-T,$(CURDIR)/static.ld$(PACKED)" $(MUSL_BUILD) --release

image: static
	@[ -n "$(IMAGE_BUILDER)" ] || { echo "make image: it needs podman, buildah, or docker with an engine that runs: install podman" >&2; exit 1; }
	install -D $(MUSL_BUILT)/release/configbump $(MUSL_BUILT)/image/configbump
	$(IMAGE_BUILDER) build --file Containerfile --platform linux/$(ARCH) --tag $(IMAGE) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) $(MUSL_BUILT)/image

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

PREFIX ?= /usr/local
BIN = $(DESTDIR)$(PREFIX)/bin
SHARE = $(DESTDIR)$(PREFIX)/share

# Another executable than that of `make build` may be named; then nothing is built.
ifdef EXECUTABLE
install:
else
EXECUTABLE = $${CARGO_TARGET_DIR:-target}/release/configbump
install: build
endif
	install -D -m 755 "$(EXECUTABLE)" "$(BIN)/configbump"
	install -d "$(SHARE)/man/man1" "$(SHARE)/bash-completion/completions" "$(SHARE)/zsh/site-functions" "$(SHARE)/fish/vendor_completions.d"
	umask 022 && "$(EXECUTABLE)" man >"$(SHARE)/man/man1/configbump.1"
	umask 022 && "$(EXECUTABLE)" completions bash >"$(SHARE)/bash-completion/completions/configbump"
	umask 022 && "$(EXECUTABLE)" completions zsh >"$(SHARE)/zsh/site-functions/_configbump"
	umask 022 && "$(EXECUTABLE)" completions fish >"$(SHARE)/fish/vendor_completions.d/configbump.fish"

# What has to be so before TAG is released…
release-check:
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml); \
	[ "$(TAG)" = "v$$version" ] || \
		{ echo "make release-check: the tag is '$(TAG)', and Cargo.toml has the version $$version: tag v$$version, or change it there" >&2; exit 1; }; \
	grep -q "^## $$version - [0-9-]*$$" CHANGELOG.md || \
		{ echo "make release-check: CHANGELOG.md has no heading '## $$version - YEAR-MONTH-DAY': move there what is under Unreleased" >&2; exit 1; }

# …and what the CHANGELOG says of it.
release-notes:
	@awk -v head="## $(TAG:v%=%) - " '/^## / { found = index($$0, head) == 1; next } found' CHANGELOG.md

.PHONY: cargo musl
musl: cargo
	@command -v $(MUSL_CC) >/dev/null || \
		{ echo "make: a static executable needs $(MUSL_CC): install $(MUSL_CC_PACKAGE)" >&2; exit 1; }
	@[ -d "$$(rustc --print target-libdir --target $(MUSL))" ] || \
		{ echo "make: a static executable needs Rust's library for it: rustup target add $(MUSL)" >&2; exit 1; }

cargo:
	@command -v cargo >/dev/null || \
		{ echo "make: no cargo: install Rust $$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer from rustup.rs" >&2; exit 1; }
