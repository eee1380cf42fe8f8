# What ships: wheel, archive, deb, rpm and container image. The Makefile includes this file.

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ARTIFACTS := $(TARGET)/artifacts
# The files of an installation, for the wheel and the archive.
STAGE := $(TARGET)/stage
# The files of the packages. Cargo.toml lists them, so this directory is always here.
PACKAGE_FILES := target/packages
EXAMPLES := $(PACKAGE_FILES)/examples
# Programs that write packages, in versions that are tested.
PACKAGE_TOOLS := $(TARGET)/package-tools
CARGO_DEB := $(PACKAGE_TOOLS)/bin/cargo-deb
CARGO_DEB_VERSION := 3.8.0
CARGO_RPM := $(PACKAGE_TOOLS)/bin/cargo-generate-rpm
CARGO_RPM_VERSION := 0.21.1
DEB_ARCHITECTURE := $(shell dpkg --print-architecture 2>/dev/null || echo amd64)
DEB := $(ARTIFACTS)/wsgate_$(VERSION)-1_$(DEB_ARCHITECTURE).deb
RPM := $(ARTIFACTS)/wsgate-$(VERSION)-1.$(shell uname -m).rpm
# All times in packages are that of the last commit, so that the same tree gives the same packages.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date +%s)
CHANGELOG_DATE = $(shell LC_ALL=C date -u -R -d @$(SOURCE_DATE_EPOCH))

.PHONY: dist stage deb rpm container-image package-files test-packages

# Tests run what ships: `make test` builds the same gateway and engine.
dist: export SOURCE_DATE_EPOCH := $(SOURCE_DATE_EPOCH)
dist: tools ## build all that ships, in target/artifacts; needs rustup, PyPI and crates.io
	$(MAKE) stage
	packaging/linkage '$(DIST)' $(GLIBC)
	rm -rf '$(ARTIFACTS)' && mkdir -p '$(ARTIFACTS)'
	packaging/tarball/build '$(STAGE)' '$(ARTIFACTS)'
	packaging/wheel/build '$(STAGE)' '$(ARTIFACTS)' '$(TOOLS)'
	$(MAKE) deb rpm
	cd '$(ARTIFACTS)' && sha256sum -- * > SHA256SUMS

stage: build
	rm -rf '$(STAGE)'
	$(MAKE) install DESTDIR='$(abspath $(STAGE))' PREFIX=/usr/local

# Debug builds of the tools take less time to build, and need seconds for a package.
$(CARGO_DEB):
	$(CARGO) install --quiet --locked --debug --root $(PACKAGE_TOOLS) cargo-deb@$(CARGO_DEB_VERSION)

$(CARGO_RPM):
	$(CARGO) install --quiet --locked --debug --root $(PACKAGE_TOOLS) \
		cargo-generate-rpm@$(CARGO_RPM_VERSION)

# The packages promise the glibc that they name.
package-files: $(GATEWAY) $(ENGINE) $(HTTP)
	packaging/linkage '$(DIST)' $(GLIBC)
	rm -rf $(PACKAGE_FILES)
	$(MAKE) --no-print-directory install DESTDIR='$(CURDIR)/$(PACKAGE_FILES)' PREFIX=/usr
	gzip -9 -n $(PACKAGE_FILES)/usr/share/man/man1/*
	gzip -9 -n < CHANGELOG.md > $(PACKAGE_FILES)/changelog.gz
	mkdir -p $(EXAMPLES)
	git ls-files -z apache web-servers cgi-bin | tar -c --null -T - | tar -x -C $(EXAMPLES)
	find $(EXAMPLES)/cgi-bin -name '*.wsgi' -exec sed -i 's,/usr/local/bin/,/usr/bin/,' {} +
	packaging/copyright > $(PACKAGE_FILES)/copyright
	printf 'wsgate (%s-1) unstable; urgency=medium\n\n  * %s\n\n -- %s  %s\n' '$(VERSION)' \
		'Changes of this version: changelog.gz in this directory.' \
		'The wsgate developers <wsgate@users.noreply.github.com>' \
		'$(CHANGELOG_DATE)' > $(PACKAGE_FILES)/changelog
	cp CHANGELOG.md packaging/example.toml packaging/logrotate/wsgate $(PACKAGE_FILES)
	find $(PACKAGE_FILES) -exec touch --date=@$(SOURCE_DATE_EPOCH) {} +

deb: $(CARGO_DEB) package-files ## package a release build as deb, in target/artifacts
	mkdir -p $(ARTIFACTS)
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(CARGO_DEB) --no-build --no-strip --locked --quiet \
		--output $(DEB)

rpm: $(CARGO_RPM) package-files ## package a release build as rpm, in target/artifacts
	mkdir -p $(ARTIFACTS)
	$(CARGO_RPM) --auto-req builtin --payload-compress gzip --source-date $(SOURCE_DATE_EPOCH) \
		--output $(RPM)

# Takes the base image from a registry.
container-image: deb ## build the container image `wsgate` with podman
	podman build --format docker -t wsgate -f packaging/container/Containerfile $(ARTIFACTS)

test-packages: dist ## test what ships, in roots of distributions; needs root, and Debian
	tests/setup.sh packages
	tests/packaging/run
	tests/packaging/artefacts.sh
	tests/packaging/deb.sh
	tests/packaging/systemd.sh
	tests/packaging/container.sh
	tests/packaging/sdist
	tests/packaging/reproducible
