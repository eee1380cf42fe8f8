# What a newcomer types. `make` alone lists it.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# Where cargo builds to, unless told otherwise.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# A release build, laid out as it is installed.
DIST := $(TARGET)/dist
GATEWAY := $(DIST)/bin/wsgate
ENGINE := $(DIST)/lib/wsgate/libwsgate_engine.so
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
# The gateway starts at every request, and faster without shared libraries. `make build` links it with
# musl, which `rustup target add` installs where rustup is: glibc asks the processor what it can at each
# start, and each answer takes a virtual machine some microseconds. Without musl it is linked with glibc,
# statically where libc.a is installed.
MUSL := $(subst -gnu,-musl,$(HOST))
MUSL_LIBRARIES := $(shell rustc --print sysroot)/lib/rustlib/$(MUSL)/lib
LIBC_ARCHIVE := $(findstring /,$(shell $(or $(CC),cc) -print-file-name=libc.a 2>/dev/null))
# Found out when it is used: the target `musl` may have installed it by then.
GATEWAY_TARGET = $(shell [ -d '$(MUSL_LIBRARIES)' ] && echo $(MUSL) || echo $(HOST))
GATEWAY_FLAGS := $(if $(LIBC_ARCHIVE),-C target-feature=+crt-static)
# Names of tests, or beginnings of them, for `make try`.
TESTS ?=

INSTALL := install
PLACE := $(DESTDIR)$(PREFIX)
MAN := $(PLACE)/share/man/man1/wsgate.1
BASH_WORDS := $(PLACE)/share/bash-completion/completions/wsgate
ZSH_WORDS := $(PLACE)/share/zsh/site-functions/_wsgate
FISH_WORDS := $(PLACE)/share/fish/vendor_completions.d/wsgate.fish
UNITS := $(PLACE)/lib/systemd/system
SERVICE := $(UNITS)/wsgate@.service
SOCKET := $(UNITS)/wsgate@.socket

.PHONY: help build musl demo test try test-attack bench fuzz install uninstall ci fmt clippy doc

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: musl ## release build of gateway and engine, in target/dist
	$(CARGO) build --release -p wsgate-engine
	RUSTFLAGS="$(RUSTFLAGS) $(GATEWAY_FLAGS)" $(CARGO) build --release -p wsgate --target $(GATEWAY_TARGET)
	$(INSTALL) -D -m 755 $(TARGET)/$(GATEWAY_TARGET)/release/wsgate $(GATEWAY)
	$(INSTALL) -D -m 755 $(TARGET)/release/libwsgate_engine.so $(ENGINE)

musl:
	@[ -d '$(MUSL_LIBRARIES)' ] || ! command -v rustup >/dev/null || timeout 300 rustup target add $(MUSL) || true
	@[ -d '$(MUSL_LIBRARIES)' ] || echo 'Rust has no target $(MUSL) here: the gateway is linked with glibc,' \
		'$(if $(LIBC_ARCHIVE),statically,with shared libraries), and starts more slowly'

demo: build ## build, and show a request to cgi-bin/hello.wsgi answered; needs Rust and Python only
	@echo
	@echo '$$ wsgate call -i cgi-bin/hello.wsgi'
	@$(GATEWAY) call -i cgi-bin/hello.wsgi

test: build ## all tests of the release build, through real web servers too (installs these where they are missing)
	tests/setup.sh
	WSGATE_TEST_DIST= $(CARGO) test --workspace

# With a debug build, which is quicker to make, and whose arithmetic is checked.
try: ## some tests of a debug build, for a quick look: make try TESTS='pool::timeouts warm::stale'
	$(CARGO) build --workspace
	WSGATE_TEST_DIST="$$(cd '$(TARGET)' && pwd)/debug" $(CARGO) test --test wsgate -- $(TESTS)

# Each attack leaves a row, and the rows stand in the document in the order of their numbers.
ATTACK_ROWS = $(TARGET)/attack

# More at once than there are processors: most of the time these wait.
test-attack: build ## attacks in their long form, ten minutes; their counts go into docs/reliability.md
	tests/setup.sh
	rm -rf '$(ATTACK_ROWS)' && mkdir -p '$(ATTACK_ROWS)'
	WSGATE_TEST_DIST= WSGATE_TEST_ATTACK=long WSGATE_TEST_ATTACK_ROWS="$$(cd '$(ATTACK_ROWS)' && pwd)" \
		timeout 900 $(CARGO) test --test wsgate attack:: -- --test-threads 4
	tests/attack/document '$(ATTACK_ROWS)' docs/reliability.md

bench: build ## speed against the peers, in one run; ROWS='P1 P11' for some of it, and no document
	benches/run $(ROWS)

fuzz: ## the protocol under AFL++, a minute each target; SECONDS_EACH=600 for more
	crates/fastcgi-server/fuzz/run

# Builds only what is not there at all, so that after `make build` a `sudo make install` needs no cargo and leaves no
# file of root's in the tree.
$(GATEWAY) $(ENGINE):
	$(MAKE) build

install: $(GATEWAY) $(ENGINE) ## put a release build under PREFIX (/usr/local); DESTDIR is honoured
	$(INSTALL) -D -m 755 $(GATEWAY) $(PLACE)/bin/wsgate
	$(INSTALL) -D -m 755 $(ENGINE) $(PLACE)/lib/wsgate/libwsgate_engine.so
	$(INSTALL) -d $(dir $(MAN) $(BASH_WORDS) $(ZSH_WORDS) $(FISH_WORDS)) $(UNITS)
	$(GATEWAY) man > $(MAN)
	$(GATEWAY) completions bash > $(BASH_WORDS)
	$(GATEWAY) completions zsh > $(ZSH_WORDS)
	$(GATEWAY) completions fish > $(FISH_WORDS)
	sed 's,/usr/local/bin/,$(PREFIX)/bin/,' docs/systemd/wsgate@.service > $(SERVICE)
	cat docs/systemd/wsgate@.socket > $(SOCKET)
	chmod 644 $(MAN) $(BASH_WORDS) $(ZSH_WORDS) $(FISH_WORDS) $(SERVICE) $(SOCKET)

uninstall: ## take it away again
	rm -f $(PLACE)/bin/wsgate $(PLACE)/lib/wsgate/libwsgate_engine.so $(MAN) $(BASH_WORDS) $(ZSH_WORDS) $(FISH_WORDS) $(SERVICE) $(SOCKET)
	rmdir $(PLACE)/lib/wsgate || true

ci: fmt clippy doc test demo ## what the continuous integration runs
	$(MAKE) bench QUICK=1
	tests/install.sh

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --document-private-items
