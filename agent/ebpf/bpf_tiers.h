/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiers of capturing: which programs of the object make one, and how those are attached that the
 * skeleton cannot attach by itself. For the files that know libbpf.
 */
#ifndef AGENT_BPF_TIERS_H
#define AGENT_BPF_TIERS_H

#include "agent/ebpf/source.h"

struct bpf_link;
struct bpf_program;
struct tailrace;

enum { TIER_LINKS = 10 };
#define TIER_FIRST TIER_SOCK_LENGTH /* in the order in which they are tried */
#define TIER_LAST TIER_KPROBE

/* A return probe with room for many calls at once is an event in tracefs, which has a name. */
struct tier_event {
    char name[64]; /* GROUP/EVENT; "" if there is none */
};

struct tier_links {
    struct bpf_link *links[TIER_LINKS];
    struct tier_event events[TIER_LINKS];
    unsigned n;
};

const char *tier_name(enum capture_tier t);
/* Whether the tier cannot do without the program. Functions that this kernel does not have (of
 * IPv6, of sendfile) are not needed. */
bool tier_needs(enum capture_tier t, const char *program);
/* Whether the program is of no use in the tier. */
bool tier_excludes(enum capture_tier t, const char *program);
/* The first tier that uses the program. */
enum capture_tier tier_of(const char *program);
/* Before loading: leaves out the programs of other tiers, and those whose function is not there. */
void tier_prepare(struct tailrace *skel, enum capture_tier t);
/* Attaches one of the tier's own programs, and keeps the link. 0 or -errno. */
int tier_attach_program(struct tailrace *skel, struct bpf_program *p, struct tier_links *l);
/*
 * After loading: attaches all. Cookies of sockets that are there already are minted when the
 * programs cannot do that. 0 or -errno; what is attached so far is then detached by tier_detach.
 */
int tier_attach(struct tailrace *skel, enum capture_tier t, struct tier_links *l);
void tier_detach(struct tier_links *l);
/* How often the kernel did not run a program or a probe of ours though its hook was reached. */
uint64_t tier_missed(const struct tailrace *skel, const struct tier_links *l);

#endif
