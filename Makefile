# What runs for longer than a test, each with a budget of TIME seconds. `tests/run` is the test command, `benchmarks/run` the benchmarks.
#
#   make chaos TIME=600 SEED=4711   break things at random and count; without SEED one is chosen, and printed
#   make soak  TIME=600             a steady load with reloads and restarts, and what grows
#   make fuzz  TIME=120             lines, hellos, journals and the C SDK's encoder and reader, nearly right
#   make fuzz-scan TIME=60          the scanner in C, by libFuzzer under the sanitizers
#   make forward ROUNDS=100         an edge and a central sidecar, of which so many things go wrong
#   make s3 ROUNDS=20               the S3 backend's tests, with so many kills and stops of each kind
#   make kafka ROUNDS=20            the Kafka backend and receiver, with so many kills of sidecars and broker
#   make history KILLS=50           the sidecar killed so often under load, and a count over its history
#   make schedules KILLS=100        the sidecar killed at transitions of its schedules, each of which must be there once
#   make fresh                      the two commands of the README on a new Debian 12 and 13 (root, debootstrap)
#   make mutants PACKAGE=journal    how many small changes of a package its unit tests notice (build/mutants); SAMPLE=300: of so many
#   make wheelhouse deb deb-check   the wheels for machines without a network, the Debian packages, and these installed, used, upgraded
#                                   and purged on a booted Debian 12 and 13 (root, debootstrap, systemd-nspawn); RELEASE=trixie: one of them
#   make air-gapped-check           docs/air-gapped.md on new systems that have loopback alone, after `make wheelhouse`
#   make release                    wheels, packages, SDKs with their registries' checks, locks, SBOM and checksums, in dist/
#   make site                       the documentation as a site, in build/site/html: opened from the disk, it needs no network
#   make compat                     the SDKs of the last release against this sidecar, these SDKs against its sidecar
#   make plans  ROWS=3000000        what the views, readers and panels of the database read, on so many rows
#   make kills  KILLS=50 CRASHES=20 a sidecar that is killed, and a database server that crashes, under load: what was
#                                   acknowledged must be there once
#   make rows                       the C that makes rows for COPY, fuzzed under the sanitizers

PYTHON ?= .venv/bin/python
SEED ?=

chaos: TIME ?= 600
chaos:
	$(PYTHON) tests/chaos --time $(TIME) $(if $(SEED),--seed $(SEED))

soak: TIME ?= 600
soak:
	$(PYTHON) tests/chaos/soak.py --time $(TIME)

# Half the time for each half; about forty examples a second.
fuzz: TIME ?= 120
fuzz:
	FUZZ_EXAMPLES=$$(($(TIME) * 40)) $(PYTHON) -m pytest -q -o timeout=0 tests/fuzz
	$(MAKE) -C sdk/c fuzz FUZZ_SECONDS=$$(($(TIME) / 2))
	$(MAKE) fuzz-scan TIME=$$(($(TIME) / 2))

# The scanner of lines alone, begun with a good line of each type.
fuzz-scan: TIME ?= 60
fuzz-scan:
	mkdir -p build/scan
	$(PYTHON) -c 'from wafermon.contract import one_of_each; [open(f"build/scan/{n}", "wb").write(line) for n, line in enumerate(one_of_each(1))]'
	clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -o build/fuzz_scan tests/fuzz/scan.c
	build/fuzz_scan -max_total_time=$(TIME) -max_len=1024 -print_final_stats=1 build/scan

history: KILLS ?= 50
history:
	WAFERMON_HISTORY_KILLS=$(KILLS) WAFERMON_HISTORY_SEEDS=10 $(PYTHON) -m pytest -q -o timeout=0 -n0 tests/processes/test_history_crash.py

# The times are shown beside the rows that were read; only the rows are checked.
plans: ROWS ?= 3000000
plans:
	WAFERMON_TEST_ROWS=$(ROWS) $(PYTHON) -m pytest -q -n0 -rP -o timeout=0 tests/databases/test_timescaledb_plans.py

forward: ROUNDS ?= 100
forward:
	WAFERMON_FORWARD_ROUNDS=$(ROUNDS) $(PYTHON) -m pytest -q -o timeout=0 -n0 tests/chaos/test_forwarding.py

s3: ROUNDS ?= 20
s3:
	tests/versitygw
	WAFERMON_TEST_ROUNDS=$(ROUNDS) $(PYTHON) -m pytest -q -o timeout=3600 tests/databases -k "s3"

kafka: ROUNDS ?= 20
kafka:
	tests/kafka-broker
	WAFERMON_TEST_ROUNDS=$(ROUNDS) $(PYTHON) -m pytest -q -n0 -o timeout=0 tests/databases -k kafka

kills: KILLS ?= 50
kills: CRASHES ?= 20
kills:
	WAFERMON_TEST_ROUNDS=$(KILLS) $(PYTHON) -m pytest -q -n0 -o timeout=0 tests/databases/test_timescaledb_crashes.py -k sigkill
	WAFERMON_TEST_ROUNDS=$(CRASHES) $(PYTHON) -m pytest -q -n0 -o timeout=0 tests/databases/test_timescaledb_crashes.py -k crashes_of_the_server

# Built in place with the sanitizers, and again without them at the end.
rows:
	trap '$(PYTHON) setup.py -q build_ext --inplace --force' EXIT; \
	CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined' $(PYTHON) setup.py -q build_ext --inplace --force && \
	FUZZ_EXAMPLES=5000 ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	PYTHONMALLOC=malloc $(PYTHON) -m pytest -q -n0 -o timeout=0 tests/unit/backends/test_timescaledb_rows.py

schedules: KILLS ?= 100
schedules:
	WAFERMON_TEST_ROUNDS=$(KILLS) $(PYTHON) -m pytest -q -n0 -rP -o timeout=0 tests/processes/test_schedules_crash.py tests/processes/test_schedules_states.py

fresh:
	tests/fresh

wheelhouse:
	packaging/wheelhouse $(RELEASE)

deb: wheelhouse
	packaging/deb $(RELEASE)

deb-check:
	packaging/deb-check $(RELEASE)

air-gapped-check:
	packaging/air-gapped-check $(RELEASE)

release:
	packaging/release

# A warning is an error: a link that leads nowhere, a heading that is not there, a page that no other names.
site:
	$(PYTHON) packaging/site/pages.py . build/site/pages
	$(PYTHON) -m sphinx -q -W --keep-going -j auto -c packaging/site -d build/site/doctrees build/site/pages build/site/html
	@echo "build/site/html/index.html"

# What is left out: R and Node.js can't lock files. 2.0.0 looked whether the process of such a file lives; since then 30 s without a
# write tell that it is gone.
compat: OLDER = $$(tests/releases/tree 2.0.0)
compat:
	$(MAKE) -s -C $(OLDER)/sdk/c driver
	cd $(OLDER)/sdk/conformance && WAFERMON_SIDECAR_TREE=$(CURDIR) $(abspath $(PYTHON)) -m pytest -q -p no:cacheprovider test_daemon.py \
	  --deselect 'sdk/conformance/test_daemon.py::test_file_of_a_live_owner_is_left[r]'
	$(MAKE) -s -C sdk/c driver
	cd sdk/conformance && WAFERMON_SIDECAR_TREE=$(OLDER_FROM_HERE) $(abspath $(PYTHON)) -m pytest -q -p no:cacheprovider test_daemon.py \
	  -k "not owner_without_a_lock"
compat: OLDER_FROM_HERE = $(CURDIR)/build/releases/2.0.0

mutants:
	SAMPLE=$(SAMPLE) SEED=$(SEED) tests/mutants $(PACKAGE) $(MUTANTS)

.PHONY: air-gapped-check chaos compat deb deb-check forward fresh fuzz fuzz-scan history kafka kills mutants plans release rows s3 schedules site soak wheelhouse
