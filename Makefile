# SPDX-License-Identifier: Apache-2.0
#
# make              bin/tailrace-agent and bin/tailrace-gateway
# make SAN=address  the same under build/gcc-address/bin (address, undefined, thread; a,b for both)
# make CC=clang     another compiler, another folder
# make help         all targets
#
# No file lists: a new .c in a room, a new *_test.c, *_fuzz.c or *_bench.c is found by itself.

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
SAN ?=
FAULT ?=
CLANG ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
PYTHON ?= $(firstword $(wildcard .venv/bin/python) python3)
PREFIX ?= /usr/local
DESTDIR ?=

comma := ,
compiler := $(notdir $(lastword $(CC)))
flavour := $(compiler)$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(FAULT),-fault-$(FAULT))
B := build/$(flavour)
G := build/gen
BIN := $(if $(SAN)$(FAULT)$(filter-out gcc,$(compiler)),$(B)/bin,bin)

version := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0)
libs := libuv libnghttp2 libcjson yaml-0.1 libcyaml openssl libcares libpcre2-8 libxxhash libdeflate \
        libisal libzstd
agent_libs := libbpf libelf zlib

CPPFLAGS += -I. -I$(G) -D_GNU_SOURCE
CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
        -Wformat=2 -Wvla -Wundef -Wno-unused-parameter -Wno-missing-field-initializers
# Small blocks are cleared and copied by a few moves: "rep stos" takes longer to begin than they take.
tune := $(if $(filter x86_64,$(shell uname -m)),-mtune=skylake)
cflags := -std=gnu11 $(tune) -fno-omit-frame-pointer -fno-strict-aliasing -ffunction-sections \
          -fdata-sections $(WARN) $(CFLAGS) $(shell pkg-config --cflags $(libs) 2>/dev/null)
# Across files: a seventh of the agent's time for a request. LTO= builds without.
LTO ?= $(if $(SAN)$(FAULT)$(filter-out gcc,$(compiler)),,-flto=auto)
cflags += $(LTO)
ldflags := -Wl,--gc-sections $(LTO) $(CFLAGS) $(LDFLAGS)
ldlibs := $(shell pkg-config --libs $(libs) 2>/dev/null) -lprotobuf-nanopb -lpthread -lm
ifneq ($(SAN),)
cflags += -fsanitize=$(SAN) $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined)
ldflags += -fsanitize=$(SAN)
endif
ifneq ($(FAULT),)
CPPFLAGS += -DTAILRACE_FAULT_$(shell echo $(FAULT) | tr a-z A-Z)
endif

find_c = $(sort $(shell find $(1) -name '*.c' 2>/dev/null))
common_src := $(call find_c,common)
agent_src := $(call find_c,agent)
gateway_src := $(call find_c,gateway)
protos := $(sort $(wildcard proto/*.proto))
proto_src := $(protos:proto/%.proto=$(G)/proto/%.pb.c)
bpf_src := $(sort $(wildcard bpf/*.bpf.c))
skeleton := $(if $(bpf_src),$(G)/bpf/tailrace.skel.h)

obj = $(patsubst %.c,$(B)/%.o,$(1))
common_obj := $(call obj,$(common_src) $(proto_src))
agent_obj := $(call obj,$(agent_src))
gateway_obj := $(call obj,$(gateway_src))
programs := $(if $(wildcard agent/main.c),$(BIN)/tailrace-agent) \
            $(if $(wildcard gateway/main.c),$(BIN)/tailrace-gateway)

.PHONY: all
all: $(programs) ## the two programs

$(BIN)/tailrace-agent: $(common_obj) $(agent_obj)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(ldflags) -o $@ $^ $(ldlibs) $(shell pkg-config --libs $(agent_libs))

$(BIN)/tailrace-gateway: $(common_obj) $(gateway_obj)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(ldflags) -o $@ $^ $(ldlibs)

# ---- compiling ----

# Generated headers must be there before anything is compiled; afterwards .d files know who needs them.
generated := $(proto_src) $(skeleton)
.SECONDARY: $(proto_src)

$(B)/%.o: %.c | $(generated)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CPPFLAGS) $(cflags) $(if $(filter build/%,$<),-w) \
	    $(if $(filter common/pipeline/version.c,$<),-DTAILRACE_VERSION='"$(version)"') \
	    -MMD -MP -c -o $@ $<

$(G)/proto/%.pb.c: proto/%.proto $(wildcard proto/*.options)
	@mkdir -p $(@D)
	@echo "  PROTO $<"
	@protoc -Iproto --nanopb_out="-Iproto:$(G)/proto" $<

$(G)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h)
	@mkdir -p $(@D)
	@echo "  BPF   $<"
	@$(CLANG) -target bpf -D__bpf__ -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter \
	    -D__TARGET_ARCH_$(shell uname -m | sed 's/x86_64/x86/;s/aarch64/arm64/') \
	    -I. -idirafter /usr/include/$(shell uname -m)-linux-gnu -c -o $@ $<

$(G)/bpf/tailrace.o: $(bpf_src:bpf/%.bpf.c=$(G)/bpf/%.bpf.o)
	@echo "  GEN   $@"
	@$(BPFTOOL) gen object $@ $^

$(skeleton): $(G)/bpf/tailrace.o
	@$(BPFTOOL) gen skeleton $< name tailrace > $@.tmp && mv $@.tmp $@

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- unit tests: test/unit mirrors the tree; the .c files a test includes are left out of its link ----

unit_src := $(sort $(shell find test/unit -name '*_test.c' 2>/dev/null))
unit_bin := $(unit_src:%.c=$(B)/%)
room = $(word 3,$(subst /, ,$(1)))
included = $(shell sed -n 's/^\#include "\([^"]*\.c\)".*/\1/p' $(1))
link_for = $(filter-out $(call obj,$(included) %/main.c),$(common_obj) \
           $(if $(filter agent,$(call room,$(1))),$(filter-out $(B)/agent/main.o,$(agent_obj))) \
           $(if $(filter gateway,$(call room,$(1))),$(filter-out $(B)/gateway/main.o,$(gateway_obj))))

.SECONDEXPANSION:
$(unit_bin): $(B)/%: $(B)/%.o $$(call link_for,$$*.c)
	@echo "  LINK  $@"
	@$(CC) $(ldflags) -o $@ $(filter %.o,$^) $(ldlibs) -lcmocka \
	    $(if $(filter agent,$(call room,$*.c)),$(shell pkg-config --libs $(agent_libs)))

.PHONY: unit unit-bin
unit-bin: $(unit_bin)
unit: unit-bin ## unit tests, each in its own process
	@scripts/run-unit $(unit_bin)

# ---- fuzzing: a target per decoder, always with clang, under ASan and UBSan ----

fuzz_src := $(sort $(wildcard test/fuzz/*_fuzz.c))
fuzz_bin := $(fuzz_src:%.c=$(B)/%)
fuzz_make = $(MAKE) --no-print-directory CC="$(filter %ccache,$(CC)) $(CLANG)" \
            SAN=fuzzer-no-link,address,undefined
FUZZ_SECONDS ?= 60

# Targets may link the agent; what none of them calls goes with --gc-sections.
$(fuzz_bin): $(B)/%: $(B)/%.o $$(filter-out $$(call obj,$$(call included,$$*.c)) $(B)/agent/main.o,\
             $(common_obj) $(agent_obj))
	@echo "  LINK  $@"
	@$(CC) $(subst fuzzer-no-link,fuzzer,$(ldflags)) -o $@ $(filter %.o,$^) $(ldlibs) \
	    $(shell pkg-config --libs $(agent_libs))

.PHONY: fuzz-bin fuzz fuzz-corpus fuzz-run fuzz-replay
fuzz-bin: $(fuzz_bin)
fuzz-run: fuzz-bin
	@scripts/fuzz run $(FUZZ_SECONDS) $(fuzz_bin)
fuzz-replay: fuzz-bin
	@scripts/fuzz replay $(fuzz_bin)
fuzz: ## every fuzz target for FUZZ_SECONDS each (ONLY=name for one)
	@$(fuzz_make) fuzz-run $(if $(ONLY),fuzz_src=test/fuzz/$(ONLY)_fuzz.c)
fuzz-corpus: ## the inputs in test/fuzz/corpus once
	@$(fuzz_make) fuzz-replay

# ---- benchmarks and tools of tests ----

tool_src := $(sort $(wildcard test/tools/*.c))
tool_bin := $(tool_src:%.c=$(B)/%)
bench_src := $(sort $(wildcard test/bench/*_bench.c))
bench_bin := $(bench_src:%.c=$(B)/%)
bench_obj := $(call obj,$(filter-out $(bench_src),$(sort $(wildcard test/bench/*.c))))
$(tool_bin) $(bench_bin): $(B)/%: $(B)/%.o $(bench_obj) $(common_obj)
	@echo "  LINK  $@"
	@$(CC) $(ldflags) -o $@ $(filter %.o,$^) $(ldlibs)
.PHONY: tools
tools: $(tool_bin) $(bench_bin) ## helper programs of tests and benchmarks

# ---- what people call ----

# ---- reading without running ----

# One file a process: clang-tidy 14 loses track of va_list when it gets several. The analyzer's nodes
# are bounded, which is where its time goes.
tidy_src := $(common_src) $(agent_src) $(gateway_src)
tidy_flags := -std=gnu11 $(CPPFLAGS) -Xclang -analyzer-config -Xclang max-nodes=30000
.PHONY: tidy cppcheck
tidy: $(generated) ## clang-tidy, as .clang-tidy says
	@printf '%s\n' $(or $(ONLY),$(tidy_src)) | \
	    xargs -P $(shell nproc) -I{} clang-tidy --quiet {} -- $(tidy_flags) 2>/dev/null

# What cppcheck cannot read of libraries' macros is told to it; generated files are not ours.
cppcheck: $(generated) ## cppcheck: warnings, performance, portability
	@cppcheck --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	    --quiet -j $(shell nproc) --template=gcc $(CPPFLAGS) --suppress='*:build/*' \
	    '-DLIBBPF_OPTS(type,name,...)=struct type name = {0}' \
	    '-Dbpf_object__for_each_program(p,o)=while (next(&p, o))' common agent gateway

.PHONY: setup fresh test scenario lint format run bench bench-agent install
setup: ## installs what building and testing need (Debian 12)
	@scripts/setup
fresh: ## set-up, build and unit tests in a minimal Debian 12 made for it
	@scripts/fresh
test: ## everything, with its own set-up; the last line sums it up
	@scripts/setup --quiet
	@scripts/test $(STAGES)
scenario: all tools ## scenario tests on the plain build
	@.venv/bin/python -m pytest -q test/scenario $(ARGS)
lint: ## what is told without running: clang-tidy, cppcheck, shellcheck, clang-format, structure
	@scripts/test lint
format: ## clang-format over the tree
	@git ls-files '*.c' '*.h' | xargs clang-format -i
run: ## a gateway and an agent on this host, with its own set-up
	@scripts/setup --quiet
	@$(MAKE) --no-print-directory all
	@scripts/run
bench: all tools ## cost per span beside a reference (ARGS="--quick")
	@$(PYTHON) test/bench/run.py $(ARGS)
bench-agent: all tools ## what observing nginx costs, with and without the agent (ARGS="--quick")
	@$(PYTHON) test/bench/agent.py $(ARGS)
install: all ## to $(DESTDIR)$(PREFIX)/bin
	install -D -t $(DESTDIR)$(PREFIX)/bin $(programs)

.PHONY: help clean
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 20
clean: ## removes build/ and bin/
	rm -rf build bin
