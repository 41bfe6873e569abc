// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The kernel side in one object; a family of hooks is one header. */
#include "bpf/kernel.h"

#include "bpf/inet.h"
#include "bpf/life.h"
#include "bpf/process.h"
#include "bpf/sched.h"
#include "bpf/sock.h"
#include "bpf/tls.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
