/* SPDX-License-Identifier: Apache-2.0 */
/* What this kernel lets us do, found out by doing it. */
#ifndef AGENT_DOCTOR_H
#define AGENT_DOCTOR_H

/* The command `doctor`: a line for each hook, loaded and attached by itself. Status 1 if capturing
 * cannot work. */
int doctor_command(int argc, char **argv);

#endif
