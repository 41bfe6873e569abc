/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/doctor.h"
#include "agent/ebpf/replay.h"
#include "agent/fileless.h"

#define COMPONENT(name) extern const struct component name##_component;
#include "agent/components.def"
#undef COMPONENT

#define COMPONENT(name) &name##_component,
static const struct component *const components[] = {
#include "agent/components.def"
    NULL,
};
#undef COMPONENT

static const struct service_command commands[] = {
    {"doctor", "what this kernel lets the agent do, hook by hook", doctor_command},
    {"replay", "FILE: make the spans of a recording again and print them", replay_command},
    {NULL, NULL, NULL},
};

static const struct service_program program = {
    .name = "tailrace-agent",
    .description = "Sees the HTTP traffic of unchanged programs on this host, and sends spans and "
                   "metrics.",
    .components = components,
    .max_loops = 1,
    .flags = fileless_flags,
    .make_config = fileless_config,
    .commands = commands,
};

int main(int argc, char **argv)
{
    return service_main(&program, argc, argv);
}
