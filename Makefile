# Each target does all of its own set-up: Go is enough. Debian's apt-get fetches what some tests start besides (test/tools/get.sh).
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/prometheus/common/version.Version=$(VERSION)
TOOL    := $(GO) tool -modfile=.ci/tools/go.mod

# The race detector needs a C compiler on Linux. CI has one; where there is none the tests still run.
RACE := $(if $(shell command -v gcc || command -v clang),-race)

.PHONY: demo build test race race-kvm race-rest lint bench e2e e2e-kvm e2e-kvm-faults pictures tools

## demo: two simulated vCenters, a simulated Hyper-V cluster and the agent, on this machine; ARGS="--seed 7 --once" and so on
demo:
	$(GO) run ./cmd/protip demo $(ARGS)

## build: bin/protip and bin/protip-exporter
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

## test: everything that must hold before a change lands
test:
	@$(MAKE) --no-print-directory -j2 tools lint
	@$(MAKE) --no-print-directory race

# Packages whose tests run simulated platforms and demos against the clock: one at a time, or they would starve each other. The laboratory
# of test/kvm comes before everything else on the machine, and stands the company of tests that only compute.
CLOCKED := ./cmd/... ./collector/... ./internal/app ./internal/sim/... ./internal/web/console ./remediation/... ./test/browser ./test/e2e
GOTEST  := $(GO) run ./test/tools/gotest $(RACE) -p 1

## race: all tests, with the race detector; those that were skipped are listed with their reason
race:
ifeq ($(RACE),)
	@echo "no C compiler here: testing without the race detector" >&2
	@test -z "$(PROTIP_REQUIRE_TOOLS)"
endif
	$(GO) build $(RACE) ./...
	@$(MAKE) --no-print-directory -j2 race-kvm race-rest
	$(GOTEST) $(CLOCKED)

race-kvm:
	$(GOTEST) ./test/kvm

race-rest:
	$(GOTEST) $$($(GO) list ./... | grep -vxF -e github.com/protip/protip/test/kvm -e "$$($(GO) list $(CLOCKED))")

## lint: format, vet, staticcheck
lint:
	@test -z "$$($(TOOL) gofumpt -l . | tee /dev/stderr)" || { echo "not formatted: $(TOOL) gofumpt -w ." >&2; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

## bench: benchmarks, each beside the floor it is measured against
bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

## e2e: the tests that start real programs, and the demo with ten seeds and every trace; these wait more than they compute
e2e: tools
	PROTIP_E2E=1 $(GO) run ./test/tools/gotest -count=1 -parallel 8 -timeout 30m ./cmd/... ./test/...
	PROTIP_E2E=1 $(GO) run ./test/tools/gotest -count=1 -run TestSameOverScrapes ./internal/app

## e2e-kvm: the agent on two libvirt hosts with real QEMU guests: a hot host, a slow service, each moved to where it is well; needs root
e2e-kvm: tools
	$(GO) test -v -count=1 -run 'TestAgentRelievesAHost|TestServiceMovesItsVM' ./test/kvm

## e2e-kvm-faults: the same hosts, and migrations broken in every way that an operator meets; some minutes
e2e-kvm-faults: tools
	PROTIP_E2E=1 $(GO) test -v -count=1 -timeout 20m -run 'TestMigrate|TestMigrationFails|TestAgentCancels|TestLab' ./test/kvm

## pictures: docs/img/protip-*.png, the dashboards over a real Prometheus that watches the demo; needs chromium
pictures: tools
	$(GO) test -count=1 -run 'TestDashboards$$' ./test/e2e -pictures ../../docs/img

tools:
	@test/tools/get.sh || test -z "$(PROTIP_REQUIRE_TOOLS)"
	@test/tools/get-kvm.sh || test -z "$(PROTIP_REQUIRE_TOOLS)"
	@test/tools/get-browser.sh || test -z "$(PROTIP_REQUIRE_TOOLS)"
