# The commands of Wherry; each installs what it needs. See README.md.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/wherry/target
# Most builds here are the first, which it makes slower.
export CARGO_INCREMENTAL ?= 0

.PHONY: demo test static qemu bench fuzz licences build setup clean

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

# Machines of the gateways' architectures: everything that is tested on them,
# how soon they boot, and what a power cut does to them. Before that, whether
# another build of what they run would give the same bytes.
qemu: static
	tests/reproducible
	cargo build --quiet --locked --workspace --bins
	$(CARGO_TARGET_DIR)/debug/wherry-qemu
	$(CARGO_TARGET_DIR)/debug/wherry-power

# Figures of the static binary into target/reports/*.json.
bench: static
	yocto/static --bench $(shell uname -m)
	cargo build --quiet --locked --release --workspace --bins
	$(CARGO_TARGET_DIR)/release/wherry-bench

# Every decoder of foreign bytes, for a while.
fuzz: setup
	tests/fuzz/run 120

# After a change of Cargo.lock or deny.toml.
licences:
	tests/licences --check

build:
	cargo build --locked --release --bin wherry --bin wherry-cloud

setup:
	@tests/setup

clean:
	cargo clean
	rm -rf target
