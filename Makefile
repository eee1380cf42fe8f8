# `make` lists the targets.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# Directory that cargo builds in.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# A release build, in the layout of an installation.
DIST := $(TARGET)/dist
GATEWAY := $(DIST)/bin/wsgate
ENGINE := $(DIST)/lib/wsgate/libwsgate_engine.so
HTTP := $(DIST)/lib/wsgate/wsgate-http
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
# The gateway starts at every CGI request, and starts faster without shared libraries. So `make
# build` links it with musl, installed by `rustup target add`: glibc queries the processor's
# features at each start, and each query takes some microseconds in a virtual machine. Without musl
# the gateway is linked with glibc, statically where libc.a is installed.
MUSL := $(subst -gnu,-musl,$(HOST))
MUSL_LIBRARIES := $(shell rustc --print sysroot)/lib/rustlib/$(MUSL)/lib
LIBC_ARCHIVE := $(findstring /,$(shell $(or $(CC),cc) -print-file-name=libc.a 2>/dev/null))
# Evaluated when it is used: the target `musl` may have installed the libraries by then.
GATEWAY_TARGET = $(shell [ -d '$(MUSL_LIBRARIES)' ] && echo $(MUSL) || echo $(HOST))
GATEWAY_FLAGS := $(if $(LIBC_ARCHIVE),-C target-feature=+crt-static)
# Build tools from PyPI. Where they are installed, zig links the engine so that it runs with this
# glibc and all later ones. Otherwise the engine needs the glibc of the build machine.
TOOLS := $(TARGET)/tools
GLIBC := 2.17
# Evaluated when it is used, as above: the target `tools` may have installed it by then.
HAS_ZIG = $(shell [ ! -e '$(TOOLS)/tools.txt' ] || echo yes)
ZIG := PATH="$(abspath $(TOOLS))/bin:$$PATH" \
	CARGO_ZIGBUILD_CACHE_DIR="$(abspath $(TARGET))/zig" \
	ZIG_GLOBAL_CACHE_DIR="$(abspath $(TARGET))/zig"
BUILD_ENGINE = $(if $(HAS_ZIG),$(ZIG) $(CARGO) zigbuild --target $(HOST).$(GLIBC),$(CARGO) build --target $(HOST))
RUSTFLAGS_OF = CARGO_ENCODED_RUSTFLAGS="$$(packaging/rustflags '$(TARGET)' $(1))"
# Names or beginnings of names of tests, for `make try`.
TESTS ?=

INSTALL := install
PLACE := $(DESTDIR)$(PREFIX)
MAN := $(PLACE)/share/man/man1
# The commands that have a man page of their own.
COMMANDS := cgi fastcgi serve status reload stop stacks top monitor call check init
MAN_PAGES := $(MAN)/wsgate.1 $(COMMANDS:%=$(MAN)/wsgate-%.1)
BASH_COMPLETIONS := $(PLACE)/share/bash-completion/completions/wsgate
ZSH_COMPLETIONS := $(PLACE)/share/zsh/site-functions/_wsgate
FISH_COMPLETIONS := $(PLACE)/share/fish/vendor_completions.d/wsgate.fish
COMPLETIONS := $(BASH_COMPLETIONS) $(ZSH_COMPLETIONS) $(FISH_COMPLETIONS)
UNITS := $(PLACE)/lib/systemd/system
SERVICE := $(UNITS)/wsgate@.service
SOCKET := $(UNITS)/wsgate@.socket
MONITOR := $(UNITS)/wsgate-monitor.service

.PHONY: help build musl tools demo test test-fast try test-attack bench fuzz install uninstall ci fmt clippy doc

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: musl ## build gateway, engine and wsgate-http for release, in target/dist
	@$(if $(HAS_ZIG),:,echo 'note: linking the engine with the glibc of this system; after `make tools` with glibc $(GLIBC)')
	$(call RUSTFLAGS_OF) $(BUILD_ENGINE) --release -p wsgate-engine
	$(call RUSTFLAGS_OF,$(GATEWAY_FLAGS)) $(CARGO) build --release -p wsgate --target $(GATEWAY_TARGET)
	$(call RUSTFLAGS_OF,$(GATEWAY_FLAGS)) $(CARGO) build --release -p wsgate-http --target $(GATEWAY_TARGET)
	$(INSTALL) -D -m 755 $(TARGET)/$(GATEWAY_TARGET)/release/wsgate $(GATEWAY)
	$(INSTALL) -D -m 755 $(TARGET)/$(HOST)/release/libwsgate_engine.so $(ENGINE)
	$(INSTALL) -D -m 755 $(TARGET)/$(GATEWAY_TARGET)/release/wsgate-http $(HTTP)
	@packaging/linkage $(DIST) || true

tools: ## install the build tools from PyPI, in target/tools
	packaging/tools '$(TOOLS)'

musl:
	@[ -d '$(MUSL_LIBRARIES)' ] || ! command -v rustup >/dev/null || timeout 300 rustup target add $(MUSL) || true
	@[ -d '$(MUSL_LIBRARIES)' ] || echo 'note: Rust has no target $(MUSL); linking the gateway with glibc' \
		'($(if $(LIBC_ARCHIVE),statically,with shared libraries)), which starts more slowly'

demo: build ## build, and answer one request to cgi-bin/hello.wsgi; needs Rust and Python only
	@echo
	@echo '$$ wsgate call -i cgi-bin/hello.wsgi'
	@$(GATEWAY) call -i cgi-bin/hello.wsgi

# Without PyPI, the engine is linked with the glibc of this system.
test: ## run all tests with what ships; installs web servers where they are missing
	$(MAKE) tools || true
	$(MAKE) build
	tests/setup.sh
	WSGATE_TEST_DIST= $(CARGO) test --workspace

# A debug build takes less time, and checks arithmetic.
try: ## run some tests with a debug build: make try TESTS='pool::timeouts warm::stale'
	$(CARGO) build --workspace
	WSGATE_TEST_DIST="$$(cd '$(TARGET)' && pwd)/debug" $(CARGO) test --test wsgate -- $(TESTS)

# Rooms of the tests that need no web server, and whose tests take a moment each.
FAST_TESTS = application_signals:: call:: cgi:: check:: cli:: documents:: interpreter:: messages:: \
	source_tree:: support:: wsgi:: pool::framing:: pool::requests:: pool::separation:: pool::starting::
SLOW_TESTS = attack:: cgi::property:: packages:: warm:: web_servers::

# Most of the time these wait.
test-fast: ## run the tests that need no web server and little time, with a debug build: two minutes
	$(CARGO) build --workspace
	$(CARGO) test --workspace --exclude wsgate
	$(CARGO) test --bin wsgate
	WSGATE_TEST_DIST="$$(cd '$(TARGET)' && pwd)/debug" \
		$(CARGO) test --test wsgate -- --test-threads 8 \
		$(FAST_TESTS) $(addprefix --skip ,$(SLOW_TESTS))

# Each attack writes a row. The page has the rows in the order of their numbers.
ATTACK_ROWS = $(TARGET)/attack

# More tests at a time than processors: most of the time they wait.
test-attack: build ## attack wsgate for ten minutes, and write the counts into docs/reliability.md
	tests/setup.sh
	rm -rf '$(ATTACK_ROWS)' && mkdir -p '$(ATTACK_ROWS)'
	WSGATE_TEST_DIST= WSGATE_TEST_ATTACK=long WSGATE_TEST_ATTACK_ROWS="$$(cd '$(ATTACK_ROWS)' && pwd)" \
		timeout 900 $(CARGO) test --test wsgate attack:: -- --test-threads 4
	tests/attack/document '$(ATTACK_ROWS)' docs/reliability.md

bench: build ## compare the speed with other servers; ROWS='P1 P11' for some rows, without a page
	benches/run $(ROWS)

fuzz: ## fuzz FastCGI with AFL++, a minute for each target; SECONDS_EACH=600 for more
	crates/fastcgi-server/fuzz/run

# Builds only missing files, so that after `make build` a `sudo make install` needs no cargo and
# leaves no file of root's in the tree.
$(GATEWAY) $(ENGINE) $(HTTP):
	$(MAKE) build

install: $(GATEWAY) $(ENGINE) $(HTTP) ## install a release build below PREFIX (/usr/local) and DESTDIR
	$(INSTALL) -D -m 755 $(GATEWAY) $(PLACE)/bin/wsgate
	$(INSTALL) -D -m 755 $(ENGINE) $(PLACE)/lib/wsgate/libwsgate_engine.so
	$(INSTALL) -D -m 755 $(HTTP) $(PLACE)/lib/wsgate/wsgate-http
	$(INSTALL) -d $(MAN) $(dir $(COMPLETIONS)) $(UNITS)
	$(GATEWAY) man > $(MAN)/wsgate.1
	for command in $(COMMANDS); do \
		$(GATEWAY) man $$command > $(MAN)/wsgate-$$command.1 || exit; \
	done
	$(GATEWAY) completions bash > $(BASH_COMPLETIONS)
	$(GATEWAY) completions zsh > $(ZSH_COMPLETIONS)
	$(GATEWAY) completions fish > $(FISH_COMPLETIONS)
	sed 's,/usr/local/bin/,$(PREFIX)/bin/,' packaging/systemd/wsgate@.service > $(SERVICE)
	sed 's,/usr/local/bin/,$(PREFIX)/bin/,' packaging/systemd/wsgate-monitor.service > $(MONITOR)
	cat packaging/systemd/wsgate@.socket > $(SOCKET)
	chmod 644 $(MAN_PAGES) $(COMPLETIONS) $(SERVICE) $(SOCKET) $(MONITOR)

uninstall: ## remove the installed files
	rm -f $(PLACE)/bin/wsgate $(PLACE)/lib/wsgate/libwsgate_engine.so \
		$(PLACE)/lib/wsgate/wsgate-http $(MAN_PAGES) $(COMPLETIONS) $(SERVICE) $(SOCKET) $(MONITOR)
	rmdir $(PLACE)/lib/wsgate || true

include packaging/packages.mk

ci: fmt clippy doc test demo dist ## run everything that continuous integration runs
	$(MAKE) bench QUICK=1
	tests/install.sh
	tests/packaging/run

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --document-private-items
