# What to type; `make` alone prints it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help build run shell test test-vm soak fuzz bench lint deps FORCE

CARGO ?= cargo
OVL := target/release/ovl
# Where rustup puts cargo, and where a user's path may not reach system tools.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

help: ## print this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

build: ## build the binaries into target/release
	@$(CARGO) build --release

run: deps build ## show the load balancer at work in a small cluster
	@$(OVL) demo

shell: deps build ## the cluster of `make run` with a shell on its router
	@$(OVL) demo --shell

lint: ## formatting and clippy, as the tests want them
	@$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# Every step runs, so that one look shows all that is wrong; only the function tests need the build. Most
# tests wait more than they work, so there are more of them at once than processors.
test: export RUST_TEST_THREADS ?= 8
test: deps ## formatting, clippy, unit tests, then function tests in clusters and in virtual machines
	@logs=target/test-logs; rm -rf $$logs; mkdir -p $$logs; summary=; failed=0
	step() {
		local name=$$1 start=$$SECONDS verdict=ok; shift
		printf '\n== %s: %s\n' "$$name" "$$*"
		"$$@" 2>&1 | tee $$logs/$$name.log || { verdict=FAILED; failed=1; }
		summary+=$$(printf '  %-9s %-7s %4d s' $$name $$verdict $$((SECONDS - start)))
		case $$name in
			unit) summary+="  $$(awk '/^test result:/ { p += $$4; f += $$6; i += $$8 }
				END { printf "%d passed, %d failed, %d ignored", p, f, i }' $$logs/unit.log)" ;;
			function | vm) summary+="  $$(tail -n 1 $$logs/$$name.log)" ;;
		esac
		summary+=$$'\n'
		[ $$verdict = ok ]
	}
	step format $(CARGO) fmt --check || true
	step clippy $(CARGO) clippy --workspace --all-targets -- -D warnings || true
	build() {
		$(CARGO) build --profile function --workspace --exclude bench --exclude lb-fuzz &&
			$(MAKE) --no-print-directory target/function/sctp-stack-traffic
	}
	ovl=
	if step build build; then
		ovl=$$PWD/target/function/ovl
		# The short runs of bench take them, too.
		export MARKWAY_BIN_DIR=$${ovl%/*}
	fi
	step unit $(CARGO) test --workspace --no-fail-fast || true
	if [ -n "$$ovl" ]; then
		step function $$ovl test --output $$logs/cases --junit $$logs/function.xml || true
		step vm $$ovl test --backend vm --jobs 2 --output $$logs/vm-cases --junit $$logs/vm.xml 'vm-*' || true
		grep -hE '^(FAILED|SKIPPED)' $$logs/function.log $$logs/vm.log >$$logs/missed || true
	fi
	printf '\n== summary (logs in %s)\n%s' $$logs "$$summary"
	if [ -s $$logs/missed ]; then sed 's/^/  /' $$logs/missed; fi
	exit $$failed

# The tests of crate sctp-stack as a program beside the others, built with the same profile.
target/%/sctp-stack-traffic: FORCE
	@program=$$($(CARGO) test --profile $* -p sctp-stack --test traffic --no-run \
		--message-format=json-render-diagnostics |
		sed -n 's/.*"kind":\["test"\].*"executable":"\([^"]*\)".*/\1/p')
	cp -f "$$program" $@

FORCE:

test-vm: deps build target/release/sctp-stack-traffic ## all function tests that virtual machines can run (about an hour without KVM)
	@$(CARGO) test -p ovl --test cluster -- --ignored
	$(OVL) test --backend vm --jobs 2

# In the libraries long forms are tests like any other, which look at the same variable.
soak: export MARKWAY_SOAK := 1
soak: deps build ## the long forms of what `make test` has in short (about 40 minutes)
	@$(CARGO) test -p lb-sys --release -- --nocapture
	$(OVL) test reconfigure restart fast-agrees nfqlb-udp nfqlb-fragrev evil- breaks- 'sctp-failover*' --jobs 1

fuzz: ## fuzz what reads packets, kernel messages and tables (about an hour)
	@lb/fuzz/run 600

# What the traffic generators are compared with.
bench: TOOLS += hping3:hping3 iperf:iperf wrk:wrk
bench: deps build ## measure lb and the traffic tools, beside other programs too (PEER='COMMAND' adds one)
	@bench() { $(CARGO) run --release --quiet -p bench -- "$$@"; }
	bench micro
	bench moves
	bench side-by-side $${PEER:+--peer "$$PEER"}
	bench fast-plane
	bench traffic
	bench sctp --only associations,messages

# command:package
TOOLS := awk:mawk bash:bash busybox:busybox cc:gcc curl:curl ethtool:ethtool ip:iproute2 \
	ip6tables:iptables iperf:iperf iptables:iptables mount:mount nc:netcat-openbsd nft:nftables nsenter:util-linux \
	openssl:openssl ping:iputils-ping ps:procps setpriv:util-linux ss:iproute2 tar:tar timeout:coreutils \
	tracepath:iputils-tracepath unshare:util-linux \
	xz:xz-utils

# header:package
LIBRARIES := stdlib.h:libc6-dev usrsctp.h:libusrsctp-dev

# What virtual machines are made with.
VM_TOOLS := dash:dash depmod:kmod ldd:libc-bin mksquashfs:squashfs-tools modprobe:kmod \
	qemu-system-x86_64:qemu-system-x86 sctp_test:lksctp-tools strip:binutils

# `deps` has it too when it is made for these.
test test-vm: TOOLS += $(VM_TOOLS)

deps: ## install the system tools that are missing (needs root and apt)
	@command -v $(CARGO) >/dev/null || { echo "make: cargo is missing: install Rust (https://rustup.rs)" >&2; exit 1; }
	packages=
	for tool in $(TOOLS); do
		command -v $${tool%:*} >/dev/null || packages+=" $${tool#*:}"
	done
	for library in $(LIBRARIES); do
		echo "#include <$${library%:*}>" | cc -E -x c - >/dev/null 2>&1 || packages+=" $${library#*:}"
	done
	[ -n "$$packages" ] || exit 0
	packages=$$(tr ' ' '\n' <<<"$$packages" | sort -u | xargs)
	echo "make: missing packages: $$packages"
	command -v apt-get >/dev/null || { echo "make: no apt-get here: install them by hand" >&2; exit 1; }
	[ $$(id -u) = 0 ] || { echo "make: installing needs root: sudo apt-get install $$packages" >&2; exit 1; }
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$packages
