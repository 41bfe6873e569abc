# SPDX-License-Identifier: Apache-2.0
"""HTTP by raw sockets, client and server in one process: the list of cases that capture must get right.

Needs nothing but Python's own library: the guest of test/vm runs it, too.
"""

import os
import socket
import tempfile
import threading


class Pair:
    """One connection of this process with itself; both ends are observed."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", port))
        self.client = socket.create_connection(("127.0.0.1", port))
        self.server = self.listener.accept()[0]
        self.ports = (port, self.client.getsockname()[1])

    def close(self):
        for s in (self.client, self.server, self.listener):
            s.close()


def pour(from_, to, data, piece=None):
    """Sends data and receives all of it."""
    if piece:
        for i in range(0, len(data), piece):
            from_.sendall(data[i:i + piece])
    else:
        from_.sendall(data)
    drain(to, len(data))


def drain(to, n):
    while n:
        got = len(to.recv(min(n, 65536)))
        assert got
        n -= got


GET = b"GET /%s HTTP/1.1\r\nHost: t\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def head_in_3_sends(p):
    data = GET % b"three"
    for part in (data[:7], data[7:20], data[20:]):
        pour(p.client, p.server, part)
    for part in (OK[:5], OK[5:30], OK[30:]):
        pour(p.server, p.client, part)
    return [("GET", "/three", 200, 0, 5)]


def head_in_2_byte_iovecs(p):
    for a, b, data in ((p.client, p.server, GET % b"iov"), (p.server, p.client, OK)):
        a.sendmsg([data[i:i + 2] for i in range(0, len(data), 2)])
        drain(b, len(data))
    return [("GET", "/iov", 200, 0, 5)]


def head_of_12_kb(p):
    data = (GET % b"long%d")[:-2] + b"X-Long: " + b"q" * 12000 + b"\r\n\r\n"
    long = OK[:-9] + b"\r\nX-Long: " + b"q" * 12000 + b"\r\n\r\nhello"
    # Of responses 4 KB a call are looked at, once a connection is known to be HTTP.
    for i in range(4):
        pour(p.client, p.server, data % i)
        pour(p.server, p.client, long)
    pour(p.client, p.server, GET % b"after")
    pour(p.server, p.client, OK)
    return [("GET", f"/long{i}", 200, 0, 5) for i in range(4)] + [("GET", "/after", 200, 0, 5)]


def response_head_of_40_kb(p):
    """More than is ever looked at: what the head says beyond it is not known, nor the size then."""
    fill = b"X-Long: " + b"q" * 40000 + b"\r\n"
    for path, length in ((b"in", b"Content-Length: 5\r\n" + fill), (b"out", fill + b"Content-Length: 5\r\n")):
        pour(p.client, p.server, GET % path)
        pour(p.server, p.client, b"HTTP/1.1 404 Not Found\r\n" + length + b"\r\nhello")
    pour(p.client, p.server, GET % b"after")
    pour(p.server, p.client, OK)
    return [("GET", "/in", 404, 0, 5), ("GET", "/out", 404, 0, None), ("GET", "/after", 200, 0, 5)]


def fifty_pipelined(p):
    pour(p.client, p.server, b"".join(GET % b"p%d" % i for i in range(50)))
    pour(p.server, p.client, OK * 50)
    return [("GET", f"/p{i}", 200, 0, 5) for i in range(50)]


def reader_peeks(p):
    data = GET % b"peek"
    p.client.sendall(data)
    p.server.recv(10, socket.MSG_PEEK)
    p.server.recv(1000, socket.MSG_PEEK)
    drain(p.server, len(data))
    p.server.sendall(OK)
    p.client.recv(1000, socket.MSG_PEEK)
    drain(p.client, len(OK))
    return [("GET", "/peek", 200, 0, 5)]


def without_bodies(p):
    pour(p.client, p.server, b"HEAD /h HTTP/1.1\r\nHost: t\r\n\r\n")
    pour(p.server, p.client, b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
    pour(p.client, p.server, GET % b"204")
    pour(p.server, p.client, b"HTTP/1.1 204 No Content\r\n\r\n")
    pour(p.client, p.server, GET % b"304")
    pour(p.server, p.client, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
    return [("HEAD", "/h", 200, 0, 0), ("GET", "/204", 204, 0, 0), ("GET", "/304", 304, 0, 0)]


def hundred_continue(p):
    pour(p.client, p.server, b"PUT /c HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    pour(p.server, p.client, b"HTTP/1.1 100 Continue\r\n\r\n")
    pour(p.client, p.server, b"body")
    pour(p.server, p.client, OK)
    return [("PUT", "/c", 200, 4, 5)]


def chunked_with_pauses(p):
    pour(p.client, p.server, GET % b"chunks")
    pour(p.server, p.client, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    for _ in range(2):
        threading.Event().wait(1)  # the case itself: a second between chunks
        pour(p.server, p.client, b"4\r\ndefg\r\n")
    pour(p.server, p.client, b"0\r\n\r\n")
    return [("GET", "/chunks", 200, 0, 11)]


def sendfile_body(p):
    n = 300_000
    pour(p.client, p.server, GET % b"file")
    pour(p.server, p.client, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
    reader = threading.Thread(target=drain, args=(p.client, n))
    reader.start()
    with tempfile.TemporaryFile() as f:
        f.write(b"b" * n)
        f.flush()
        sent = 0
        while sent < n:
            sent += os.sendfile(p.server.fileno(), f.fileno(), sent, n - sent)
    reader.join()
    pour(p.client, p.server, GET % b"after")
    pour(p.server, p.client, OK)
    return [("GET", "/file", 200, 0, n), ("GET", "/after", 200, 0, 5)]


def ended_by_close(p):
    pour(p.client, p.server, b"GET /close HTTP/1.0\r\n\r\n")
    pour(p.server, p.client, b"HTTP/1.0 200 OK\r\nServer: t\r\n\r\nsomething")
    return [("GET", "/close", 200, 0, 9)]


def early_413(p):
    pour(p.client, p.server, b"POST /early HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\nbeginning")
    pour(p.server, p.client, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    return [("POST", "/early", 413, None, 0)]


def client_abort(p):
    pour(p.client, p.server, GET % b"abort")
    return [("GET", "/abort", None, 0, None)]


def short_writes(p):
    n = 4_000_000
    pour(p.client, p.server, GET % b"short")
    pour(p.server, p.client, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
    p.server.setblocking(False)
    left, data = n, b"x" * n
    while left:
        try:
            left -= p.server.send(data[:left])
        except BlockingIOError:
            pass
        p.client.setblocking(False)
        try:
            while p.client.recv(65536):
                pass
        except BlockingIOError:
            pass
    p.client.setblocking(True)
    p.client.settimeout(0.3)
    try:
        while p.client.recv(65536):
            pass
    except TimeoutError:
        pass
    return [("GET", "/short", 200, 0, n)]


def reader_and_writer_threads(p):
    want = []
    n = 200

    def serve():
        for _ in range(n):
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                got += p.server.recv(4096)
            p.server.sendall(OK)

    done = threading.Semaphore(0)

    def read():
        for _ in range(n):
            drain(p.client, len(OK))
            done.release()

    threads = [threading.Thread(target=serve), threading.Thread(target=read)]
    for t in threads:
        t.start()
    for i in range(n):
        p.client.sendall(GET % b"rw%d" % i)
        done.acquire()
        want.append(("GET", f"/rw{i}", 200, 0, 5))
    for t in threads:
        t.join()
    return want


CASES = [head_in_3_sends, head_in_2_byte_iovecs, head_of_12_kb, response_head_of_40_kb, fifty_pipelined,
         reader_peeks, without_bodies, hundred_continue, chunked_with_pauses, sendfile_body, ended_by_close,
         early_413, client_abort, short_writes, reader_and_writer_threads]


SO_TIMESTAMPING, TX_SOFTWARE, SOFTWARE = 37, 2, 16


def foreign_bytes(port, log_path):
    """Ways to receive and to send in which the buffer at hand is not the stream's: peeks, truncated receives, urgent
    data, error queues, sendfile; beside them a log is written. Its secret, which is returned, stands in all buffers
    and was never on the connection. Two exchanges pass: /secret and /file."""
    p = Pair(port)
    secret = b"SECRET-" + os.urandom(8).hex().encode()
    stale = lambda: bytearray(secret * 20)
    with open(log_path, "wb+", buffering=0) as log, tempfile.TemporaryFile() as body:
        p.client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
        p.client.sendall(GET % b"secret")
        p.server.recv_into(stale(), 10, socket.MSG_PEEK)
        log.write(secret)
        assert p.server.recv_into(stale(), 27, socket.MSG_TRUNC)  # the bytes are thrown away, the buffer is stale
        log.write(secret)
        p.client.send(b"!", socket.MSG_OOB)
        p.server.recv_into(stale(), 400)
        assert p.server.recv_into(stale(), 1, socket.MSG_OOB) == 1
        p.client.recvmsg_into([stale()], 1000, socket.MSG_ERRQUEUE)  # the kernel gives our own request back
        log.write(secret)
        p.server.sendall(OK)
        p.client.recv(1000)
        pour(p.client, p.server, GET % b"file")
        body.write(b"f" * 300)
        body.flush()
        p.server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n")
        os.sendfile(p.server.fileno(), body.fileno(), 0, 300)
        log.write(secret)
        drain(p.client, 300 + len(b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n"))
    p.close()
    return secret.decode()
