# make help lists the targets. Go and make are all that is needed.

SHELL := /bin/sh
GO    ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# The tools that check the code, at the versions that CI runs.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0

.PHONY: build test demo bench bench-versus bench-compaction bench-tier bench-groups bench-failover durability storm crash compaction chaos chaos-net transactions transactions-mutants transaction-scale invariants interop interop-quick interop-secured oracle js js-install js-bench console console-check console-test console-shots console-install fmt fmt-check vet lint vuln clean help

build: ## build bin/trimaran and bin/trimaran-shim
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/trimaran ./cmd/trimaran-shim

test: ## run all tests, with the race detector
	$(GO) test -race -timeout 30m ./...
	@# -count=1: these tests run programs that they build, of which go's cache of results does not know.
	@# What takes longest begins first, so that the rest goes on beside it.
	@if [ -f test/go.mod ]; then echo 'cd test && $(GO) test -race -count=1 -timeout 30m ./suites/faults ./...'; cd test && $(GO) test -race -count=1 -timeout 30m ./suites/faults ./...; fi

demo: ## three nodes, a real text, the leader killed half-way: nothing is lost
	@scripts/demo.sh

bench: build ## throughput, latency and CPU of three-node clusters, beside what the machine gives; about 15 minutes
	cd test && $(GO) run ./tools/bench

VERSUS ?=

bench-versus: build ## the same loads on this, Kafka, NATS JetStream and klite, and what is to be reached; about 20 minutes (installs them into a cache)
	cd test && $(GO) run ./tools/bench -versus $(VERSUS)

HEAVY ?=

bench-compaction: build ## compaction of 10 GB beside Kafka's log cleaner, and produce beside compaction; about 15 minutes, 30 GB of disk
	cd test && $(GO) run ./tools/bench -compaction $(HEAVY)

bench-tier: build ## a partition of 20 GB of which 1 GB is local, and readers from its start; about 15 minutes, 50 GB of disk
	cd test && $(GO) run ./tools/bench -tier $(HEAVY)

bench-groups: build ## what 100, 1000 and 3000 idle partitions cost
	cd test && $(GO) run ./tools/benchgroups -partitions 100,1000,3000

bench-failover: build ## how long partitions are silent when a node is killed, stopped or hangs
	cd test && for how in KILL STOP TERM; do $(GO) run ./tools/benchgroups -partitions 100 -kill $$how -times 50 || exit 1; done

durability: ## produce for 60 s while nodes are killed, then look for what was lost
	scripts/durability.sh

storm: ## the same on five nodes, of which several are hit at once, and then while nodes come and go
	scripts/durability.sh --storm
	scripts/durability.sh --come-and-go

crash: ## crashes and failures of the files of logs and votes, with new seeds until one run fails or it is interrupted
	@while seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); do \
		echo "CRASH_SEED=$$seed CRASH_RUNS=2000"; \
		CRASH_SEED=$$seed CRASH_RUNS=2000 $(GO) test -count=1 -run TestTheWayDoesNotMatter ./cluster/compaction || exit 1; \
		CRASH_SEED=$$seed CRASH_RUNS=2000 $(GO) test -count=1 -run 'TestCrashes|TestFailures|TestVotesAfterCrashes|TestCompactionCrashes' ./cluster/raftlog || exit 1; \
	done

COMPACTION ?= 30m

compaction: ## a topic of real processes is compacted while nodes are killed and replicas lost, for 30 minutes, and one of 10 million keys in 64 MiB of memory
	cd test && COMPACTION_FOR=$(COMPACTION) COMPACTION_KEYS=10000000 $(GO) test -count=1 -v -timeout 3h -run 'TestCompactionWhileNodesDie|TestMoreKeysThanMemory' ./suites/faults

chaos: ## groups on a bad network, a coordinator of transactions whose writes fail, and whole clusters in a storm of all faults, in virtual time, with new seeds until one run fails
	@while seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); do \
		echo "CHAOS_SEED=$$seed CHAOS_RUNS=50"; \
		CHAOS_SEED=$$seed CHAOS_RUNS=50 $(GO) test -count=1 -run TestChaos ./cluster/election || exit 1; \
		echo "CHAOS_SEED=$$seed CHAOS_RUNS=1000 of transactions"; \
		CHAOS_SEED=$$seed CHAOS_RUNS=1000 $(GO) test -count=1 -run TestChaos ./transaction || exit 1; \
		echo "STORM_SEED=$$seed STORM_RUNS=50"; \
		STORM_SEED=$$seed STORM_RUNS=50 $(GO) test -count=1 -timeout 30m -run TestStorm ./cluster || exit 1; \
	done

CHAOS_NET ?= -seconds 600

chaos-net: ## real processes on hosts of their own whose links, disks and nodes fail, for 10 minutes (needs root)
	cd test && $(GO) run ./tools/chaosnet $(CHAOS_NET)

TRANSACTIONS ?= -seconds 600

transactions: ## transactions of real processes while nodes are killed and paused and their links cut, by producers of both versions, held against Jepsen's anomalies; 10 minutes each (needs root)
	cd test && $(GO) build -o ../bin/check-transactions ./tools/transactions
	bin/check-transactions $(TRANSACTIONS)
	bin/check-transactions -v1 -through-shim $(TRANSACTIONS)

MUTANTS ?=

transactions-mutants: ## take away the defences of transactions, one after the other: does make transactions notice? (needs root)
	cd test && $(GO) run ./tools/transactions/mutants $(MUTANTS)

SCALE ?=

transaction-scale: ## 100,000 transactional ids, one transaction over 10,000 partitions, one of 1 GiB, on real processes, held against bounds in bytes
	cd test && $(GO) run ./tools/transactionscale $(SCALE)

invariants: ## take away the code that keeps each invariant of the log: does its test notice? About 4 minutes
	@cd test && $(GO) run ./tools/invariants

INTEROP ?= -kill

interop: ## foreign clients, Kafka's tools, Streams and Connect, with kills (installs clients into a cache)
	cd test && $(GO) run ./tools/interop $(INTEROP)

oracle: ## ask a real Kafka and this what test/suites/oracle asks, and write down the answers (needs java and mvn)
	cd test && $(GO) run ./suites/oracle/record $(ORACLE)

interop-quick: ## a few clients with fewer records
	cd test && $(GO) run ./tools/interop -quick

SECURED ?= -kill

interop-secured: ## foreign clients, Kafka's tools and admin clients that log in over TLS, by each mechanism, with kills; about 30 minutes
	cd test && $(GO) run ./tools/interop -secured $(SECURED)

js-install:
	cd clients/js && npm ci --ignore-scripts --no-audit --no-fund

js: build js-install ## the JavaScript client: check its types, build it, test it against real nodes (needs Node.js 20 and npm)
	cd clients/js && npm run check && npm run build && npm run check-package && npm test

js-bench: build js-install ## records per second that the JavaScript client fetches and decodes
	cd clients/js && npm run bench

console-install:
	cd console && npm ci --ignore-scripts --no-audit --no-fund

console: console-install ## build the console's files, which are committed (needs Node.js 20 and npm)
	cd console && npm run check && npm run build

console-check: console-install ## are the console's committed files what its source makes?
	cd console && npm run check && npm run build -- --check

console-test: build console-check ## the console in headless Chromium, against real nodes; skipped where there is none
	cd console && npm test

console-shots: build console-install ## pictures of the console's pages, in both themes and three widths, into console/build/shots
	cd console && node test/run.mjs shots.mjs $(SHOTS)

fmt: ## format the code
	gofmt -w $$(git ls-files -co --exclude-standard '*.go')

fmt-check: ## fail if code is not formatted
	@files=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$files" ]; then echo "not formatted (make fmt does it):"; echo "$$files"; exit 1; fi

vet: ## go vet
	$(GO) vet ./...
	$(GO) vet -tags measure ./cluster/...
	@if [ -f test/go.mod ]; then cd test && $(GO) vet ./...; fi

lint: fmt-check vet ## formatting, go vet and staticcheck
	$(GO) run $(STATICCHECK) ./...
	@if [ -f test/go.mod ]; then cd test && $(GO) run $(STATICCHECK) ./...; fi

vuln: ## look for known vulnerabilities in what is used
	$(GO) run $(GOVULNCHECK) ./...

clean: ## delete what was built
	rm -rf bin clients/js/dist clients/js/build

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
