# Targets for people and CI; `make help` lists them.
CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/layers
BIN     := $(CACHE)/bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(BIN)/golangci-lint-$(GOLANGCI_VERSION)
PACKAGES ?= ./...

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build ## run everything on this machine: embedded stores, a simulated network, indexer and API
	@$(BIN)/layers dev $(ARGS)

.PHONY: build
build: ## build the program into the cache folder
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/layers ./cmd/layers

.PHONY: test
test: ## get and start the real stores, run every test against them, stop what was started
	go run ./test/stores -- go test -timeout 30m $(TESTFLAGS) $(PACKAGES)

.PHONY: race
race: ## the tests of the packages that share memory between goroutines, under the race detector
	go run ./test/stores --only postgres,redis -- go test -race -timeout 20m ./indexer ./indexer/firehose ./indexer/verify ./appview/... ./internal/simulate

.PHONY: stores
stores: ## keep the four real stores running, and print their addresses, until interrupted
	go run ./test/stores -- sh -c 'env | grep ^LAYERS_TEST_; exec sleep infinity'

.PHONY: fmt
fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

.PHONY: check
check: ## formatting, vet and lint, as CI runs them
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'not formatted:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	GOOS=darwin go vet ./cmd/... ./internal/...
	$(MAKE) lint

.PHONY: lint
lint: $(GOLANGCI) ## golangci-lint
	$(GOLANGCI) run ./...

$(GOLANGCI):
	@mkdir -p $(BIN)
	GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(BIN)/golangci-lint $@

.PHONY: bench-ingest
bench-ingest: ## records a second from socket to PostgreSQL, Elasticsearch and Neo4j (bench/README.md)
	go run ./test/stores --full-postgres -- go run ./bench/ingest $(ARGS)

.PHONY: bench-reindex
bench-reindex: ## records a second from PostgreSQL into new projections (bench/README.md)
	go run ./test/stores -only postgres,elasticsearch,neo4j -- go run ./bench/reindex $(ARGS)

.PHONY: bench-read
bench-read: ## get and list against the bare SQL (bench/README.md)
	go run ./test/stores --only postgres -- go run ./bench/read $(ARGS)

.PHONY: bench-fresh
bench-fresh: ## how soon a commit is found by search and in the graph (bench/README.md)
	go run ./test/stores -- go run ./bench/fresh $(ARGS)

.PHONY: bench-k6
bench-k6: ## many readers at once: annotation searches and neighbourhoods, alone and beside ingest (bench/README.md)
	go run ./test/stores -- go run ./bench/k6 $(ARGS)

.PHONY: bench-resync
bench-resync: ## a repository of a million records fetched whole (bench/README.md)
	go run ./test/stores --only postgres,redis -- go run ./bench/resync $(ARGS)

.PHONY: bench-tap
bench-tap: ## commits a second into PostgreSQL beside tap, with ARGS='-tap PATH' (bench/README.md)
	go run ./test/stores --only postgres,redis -- go run ./bench/tap $(ARGS)

.PHONY: bench-verify
bench-verify: ## commits verified a second and core, against the bare signature and inversion (bench/README.md)
	go run ./bench/verify $(ARGS)

.PHONY: drill
drill: ## lose everything, and get it back in every way, with figures (docs/operations/disaster-recovery.md)
	go run ./test/stores -- go run ./test/drill $(ARGS)

.PHONY: mutants
mutants: ## change the code in small ways and see whether the tests notice (docs/mutation.md)
	go run ./test/stores --only postgres -- go run ./test/mutants -stores $(ARGS)

.PHONY: fuzz
fuzz: ## each fuzz target for a minute
	@for t in indexer/firehose:FuzzDecode indexer/verify:FuzzCAR indexer/verify:FuzzSignedCommit indexer/verify:FuzzNode indexer/verify:FuzzTree \
	  indexer/verify:FuzzOp indexer/verify:FuzzHistory indexer/verify:FuzzCommit internal/catalog:FuzzCheck; do \
	  go test ./$${t%:*} -run xxx -fuzz "^$${t#*:}\$$" -fuzztime 60s || exit 1; done

.PHONY: check-api
check-api: build ## lint the OpenAPI document and try all that it describes (docs/api.md)
	test/api/check.sh $(ARGS)

.PHONY: check-deploy
check-deploy: ## check manifests, chart, compose and image files with the programs that will read them
	test/deploy/check.sh $(ARGS)

.PHONY: check-image
check-image: ## build the images and run them as UID 1001 on a read-only root; LAYERS_BASES=here makes the bases here
	go run ./test/stores -only postgres -- test/deploy/image.sh $(ARGS)

.PHONY: check-monitoring
check-monitoring: ## check rules, alerts, dashboards and the collector's configuration alone
	test/deploy/check.sh monitoring

.PHONY: try-monitoring
try-monitoring: ## a real Prometheus and a real collector watch the programs; an alert fires (docs/operations/monitoring.md)
	test/monitoring/try.sh $(ARGS)

.PHONY: clean
clean: ## remove what the targets cached outside the work tree
	rm -rf $(CACHE)
