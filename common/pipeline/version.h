/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PIPELINE_VERSION_H
#define PIPELINE_VERSION_H

/* Of both programs, as --version prints it and back ends are told. */
const char *tailrace_version(void);
/* "Tailrace/<version> (linux/<architecture>)": the Collector's form, in Go's words. */
const char *tailrace_user_agent(void);

#endif
