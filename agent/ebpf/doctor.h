/* SPDX-License-Identifier: Apache-2.0 */
/* What this kernel lets us do, found out by doing it. */
#ifndef AGENT_DOCTOR_H
#define AGENT_DOCTOR_H

/* The command `doctor`: a line for each hook, loaded and attached by itself. Status 1 if capturing
 * cannot work. */
int doctor_command(int argc, char **argv);
/* Loads and attaches one program of the object, alone. 0, or -errno of what *doing tells. */
int doctor_try(const char *program, const char **doing);

#endif
