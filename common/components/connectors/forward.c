/* SPDX-License-Identifier: Apache-2.0 */
/* forward: the end of some pipelines is the beginning of others of the same signal. */
#include "common/pipeline/node.h"

static void forward_consume(struct instance *in, struct batch *b, struct ack *a)
{
    node_emit(in, b, a);
}

const struct component forward_component = {
    .kind = KIND_CONNECTOR,
    .name = "forward",
    .help = "Passes data on to other pipelines of the same signal.",
    .signals = SIGNAL_ALL,
    .makes = SIGNAL_ALL,
    .stability = STABILITY_BETA,
    .affinity = AFFINITY_NONE,
    .consume = forward_consume,
};
