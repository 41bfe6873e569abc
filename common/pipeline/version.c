/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pipeline/version.h"

#ifndef TAILRACE_VERSION
#define TAILRACE_VERSION "0.1.0"
#endif

#if defined(__x86_64__)
#define ARCHITECTURE "/amd64"
#elif defined(__aarch64__)
#define ARCHITECTURE "/arm64"
#else
#define ARCHITECTURE ""
#endif

const char *tailrace_version(void)
{
    return TAILRACE_VERSION;
}

const char *tailrace_user_agent(void)
{
    return "Tailrace/" TAILRACE_VERSION " (linux" ARCHITECTURE ")";
}
