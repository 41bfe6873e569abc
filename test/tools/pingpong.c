/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pingpong CPU BATCHES: two processes on one CPU wake each other through pipes, so each message is
 * a wake-up and a switch. Prints the ns of a switch, the smallest of the batches: what else runs
 * on the machine only makes them longer. Runs in a real-time class where that is allowed.
 */
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 100 }; /* of a batch: two switches each */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int echo(int in, int out)
{
    char c;

    while (read(in, &c, 1) == 1)
        if (write(out, &c, 1) != 1)
            return 1;
    return 0;
}

static int ping(int in, int out)
{
    char c = 'x';

    for (int i = 0; i < ROUNDS; i++)
        if (write(out, &c, 1) != 1 || read(in, &c, 1) != 1)
            return -1;
    return 0;
}

int main(int argc, char **argv)
{
    int there[2], back[2], cpu = argc > 1 ? atoi(argv[1]) : 0, n = argc > 2 ? atoi(argv[2]) : 100;
    uint64_t best = UINT64_MAX;
    cpu_set_t set;
    pid_t child;

    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) || pipe(there) || pipe(back))
        return 1;
    child = fork();
    if (child < 0)
        return 1;
    if (child == 0) {
        close(there[1]);
        return echo(there[0], back[1]);
    }
    for (int i = 0; i < n; i++) {
        uint64_t start = now_ns(), took;

        if (ping(back[0], there[1]))
            return 1;
        took = (now_ns() - start) / (2 * ROUNDS);
        best = took < best ? took : best;
    }
    close(there[1]);
    waitpid(child, NULL, 0);
    printf("%llu\n", (unsigned long long)best);
    return 0;
}
