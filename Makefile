# The two commands of the README are `make demo` and `make test`; both install what is missing.
SHELL := /bin/bash
export PATH := $(CURDIR)/.cache/go/bin:$(PATH):/usr/sbin:/sbin
export GOTOOLCHAIN := local
GO ?= go
FUZZTIME ?= 20s
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/tapwall/tapwall/internal/build.version=$(VERSION)

.PHONY: all build deps test unit property lab search soak contract race lint fuzz bench generate demo demo-search demo-down clean

all: build

build: bin/tapwall

bin/tapwall: deps
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/tapwall ./cmd/tapwall

deps:
	@scripts/deps.sh

# Everything: lint, properties of the wall, unit and switch layers under the race detector, the running program against its own description, then real traffic in the lab.
test: deps lint property race contract lab search

unit: deps
	$(GO) test ./...

# What the wall compiles, held to the reference: 100,000 packets and more. The race detector would make it five times as long.
property: deps
	$(GO) test -count=1 -timeout 15m ./policy/compile/wall

race: deps
	$(GO) test -race -short -timeout 20m $$($(GO) list ./... | grep -v /test/)

# The lab runs the program as users do: a built binary, a real switch, real traffic.
lab: bin/tapwall
	TAPWALL_BIN=$(CURDIR)/bin/tapwall $(GO) test -count=1 -parallel 4 -timeout 40m $$($(GO) list ./test/... | grep -v -e /test/contract -e /test/search)

# The export, held to the account of a real OpenSearch, and what depends on its version also to OpenSearch 3, where there is a Java for it.
search: bin/tapwall
	@scripts/deps.sh search
	TAPWALL_BIN=$(CURDIR)/bin/tapwall $(GO) test -count=1 -timeout 20m ./test/search
	! scripts/java.sh 3 >/dev/null || TAPWALL_OPENSEARCH=3 TAPWALL_BIN=$(CURDIR)/bin/tapwall $(GO) test -count=1 -timeout 10m \
	  -run 'Scenario0[1458]|Tunnelled|Dashboards|Questions' ./test/search

# The scenarios that `make test` shortens, in full.
soak: bin/tapwall
	TAPWALL_SOAK=1 TAPWALL_BIN=$(CURDIR)/bin/tapwall $(GO) test -count=1 -v -timeout 60m -run 'TestFirewallScenario|TestFirewallCases' ./test/e2e
	@scripts/deps.sh search
	for v in 2 3; do ! scripts/java.sh $$v >/dev/null || \
	  TAPWALL_SOAK=1 TAPWALL_OPENSEARCH=$$v TAPWALL_BIN=$(CURDIR)/bin/tapwall $(GO) test -count=1 -v -timeout 60m ./test/search || exit 1; done

# Requests derived from the OpenAPI description, answers held to it.
contract: bin/tapwall
	@scripts/deps.sh contract
	TAPWALL_BIN=$(CURDIR)/bin/tapwall $(GO) test -count=1 ./test/contract

lint: deps
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

fuzz: deps
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg; done; done

bench: bin/tapwall
	TAPWALL_BIN=$(CURDIR)/bin/tapwall $(GO) run ./test/bench

# docs/pipeline.md, api/openapi.json, the JSON of events, their fields in docs/record.md and the golden files; the same tests, without -update, fail when one is not current.
generate: deps
	$(GO) test ./policy/compile/wall -run 'TestDocument|TestGolden' -update
	$(GO) test ./api -update
	$(GO) test ./event ./event/opensearch -run TestGenerated -update

# DEMO_EXIT=1 makes the demo end by itself, with an exit status that says whether everything was seen.
demo: bin/tapwall
	@$(GO) build -o bin/demo ./test/demo
	@TAPWALL_BIN=$(CURDIR)/bin/tapwall bin/demo $(if $(DEMO_EXIT),-exit) up

# The record in a real OpenSearch, which is fetched the first time. It leaves nothing behind.
demo-search: bin/tapwall
	@scripts/deps.sh search
	@$(GO) build -o bin/demo ./test/demo
	@TAPWALL_BIN=$(CURDIR)/bin/tapwall bin/demo search

demo-down:
	@[ ! -x bin/demo ] || bin/demo down

clean:
	rm -rf bin
