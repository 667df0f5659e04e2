# The commands of Wherry; each installs what it needs. See README.md.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/wherry/target

.PHONY: demo test static bench build setup clean

# The main job, on this machine: install, upgrade, failure, offline, back.
demo: setup
	cargo build --quiet --locked --workspace --bins
	$(CARGO_TARGET_DIR)/debug/wherry-demo

# Every check there is; the last line counts them.
test: setup
	tests/all

# target/static/ARCH/wherry for x86_64, aarch64 and armv7.
static: setup
	yocto/static

# Figures into target/reports/*.json.
bench: setup
	cargo build --quiet --locked --release --workspace --bins
	$(CARGO_TARGET_DIR)/release/wherry-bench

build:
	cargo build --locked --release --bin wherry --bin wherry-cloud

setup:
	@tests/setup

clean:
	cargo clean
	rm -rf target
