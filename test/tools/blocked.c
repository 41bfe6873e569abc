/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blocked N: N threads wait in recv() of one TCP connection. Prints "ready" when the last one is
 * about to, and ends with its standard input.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int connection;

static void *wait_for_bytes(void *arg)
{
    char byte;

    (void)arg;
    recv(connection, &byte, 1, 0);
    return NULL;
}

/* Both ends stay open until the process ends. */
static int connect_to_ourselves(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int listener = socket(AF_INET, SOCK_STREAM, 0), s = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(listener, (struct sockaddr *)&a, n) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&a, &n) || connect(s, (struct sockaddr *)&a, n) ||
        accept(listener, NULL, NULL) < 0)
        return -1;
    return s;
}

int main(int argc, char **argv)
{
    pthread_attr_t attr;
    pthread_t thread;
    char byte;
    int n = argc == 2 ? atoi(argv[1]) : 0;

    connection = connect_to_ourselves();
    if (n <= 0 || connection < 0)
        return 2;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 16384);
    for (int i = 0; i < n; i++)
        if (pthread_create(&thread, &attr, wait_for_bytes, NULL))
            return 3;
    printf("ready\n");
    fflush(stdout);
    return read(STDIN_FILENO, &byte, 1) < 0;
}
