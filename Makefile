# What a newcomer types. `make` alone lists it.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# Where cargo builds to, unless told otherwise.
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release

INSTALL := install
PLACE := $(DESTDIR)$(PREFIX)
MAN := $(PLACE)/share/man/man1/wsgate.1
BASH_WORDS := $(PLACE)/share/bash-completion/completions/wsgate
ZSH_WORDS := $(PLACE)/share/zsh/site-functions/_wsgate
FISH_WORDS := $(PLACE)/share/fish/vendor_completions.d/wsgate.fish

.PHONY: help build demo test bench install uninstall ci fmt clippy doc

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

build: ## release build of gateway and engine
	$(CARGO) build --release --workspace

demo: build ## build, and show a request to cgi-bin/hello.wsgi answered; needs Rust and Python only
	@echo
	@echo '$$ wsgate call -i cgi-bin/hello.wsgi'
	@$(RELEASE)/wsgate call -i cgi-bin/hello.wsgi

test: ## all tests, through real web servers too (installs these where they are missing)
	tests/setup.sh
# The tests run the engine as it lies beside the gateway, and cargo builds it for no test by itself.
	$(CARGO) build --workspace
	$(CARGO) test --workspace

bench: build ## speed against the peers, in one run; ROWS='P1 P11' for some of it
	benches/run $(ROWS)

# Builds only what is not there at all, so that after `make build` a `sudo make install` needs no cargo and leaves no
# file of root's in the tree.
$(RELEASE)/wsgate $(RELEASE)/libwsgate_engine.so:
	$(MAKE) build

install: $(RELEASE)/wsgate $(RELEASE)/libwsgate_engine.so ## put a release build under PREFIX (/usr/local); DESTDIR is honoured
	$(INSTALL) -D -m 755 $(RELEASE)/wsgate $(PLACE)/bin/wsgate
	$(INSTALL) -D -m 755 $(RELEASE)/libwsgate_engine.so $(PLACE)/lib/wsgate/libwsgate_engine.so
	$(INSTALL) -d $(dir $(MAN) $(BASH_WORDS) $(ZSH_WORDS) $(FISH_WORDS))
	$(RELEASE)/wsgate man > $(MAN)
	$(RELEASE)/wsgate completions bash > $(BASH_WORDS)
	$(RELEASE)/wsgate completions zsh > $(ZSH_WORDS)
	$(RELEASE)/wsgate completions fish > $(FISH_WORDS)
	chmod 644 $(MAN) $(BASH_WORDS) $(ZSH_WORDS) $(FISH_WORDS)

uninstall: ## take it away again
	rm -f $(PLACE)/bin/wsgate $(PLACE)/lib/wsgate/libwsgate_engine.so $(MAN) $(BASH_WORDS) $(ZSH_WORDS) $(FISH_WORDS)
	rmdir $(PLACE)/lib/wsgate || true

ci: fmt clippy doc test ## what the continuous integration runs

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --document-private-items
