/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pipeline/service.h"
#include "gateway/default_config.h"

#define COMPONENT(name) extern const struct component name##_component;
#include "gateway/components.def"
#undef COMPONENT

#define COMPONENT(name) &name##_component,
static const struct component *const components[] = {
#include "gateway/components.def"
    NULL,
};
#undef COMPONENT

static const struct service_program program = {
    .name = "tailrace-gateway",
    .description = "Brings all spans of a trace together, samples, derives metrics, exports.",
    .components = components,
    .default_config = GATEWAY_DEFAULT_CONFIG,
};

int main(int argc, char **argv)
{
    return service_main(&program, argc, argv);
}
