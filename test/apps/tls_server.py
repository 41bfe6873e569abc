# SPDX-License-Identifier: Apache-2.0
"""An HTTPS server on a TLS library of one's choice, by ctypes: every call is the library's own.

    tls_server.py LIBRARY PORT CERT KEY [SECONDS [PIECE]]

Listens at once, loads LIBRARY after SECONDS, then serves one connection after the other. Each piece
of a request is peeked at before it is read, seven bytes at a time; with PIECE it is read in pieces
of that size, without peeking. What is answered:

    /mapped   a response that is written out of a freshly mapped file
    /slow     3 MB through a small socket buffer that does not block: the write is tried again and again
    others    five bytes

Prints a line per connection: the SSL object's address and the client's port; per slow response how
often the write was tried again.
"""

import ctypes
import mmap
import os
import select
import socket
import sys
import tempfile
import time

WANT_READ, WANT_WRITE = 2, 3
BIG = 3_000_000


def load(path, cert, key):
    lib = ctypes.CDLL(path)
    for name in ("TLS_server_method", "SSL_CTX_new", "SSL_new"):
        getattr(lib, name).restype = ctypes.c_void_p
    ctx = ctypes.c_void_p(lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_server_method())))
    assert lib.SSL_CTX_use_certificate_file(ctx, cert.encode(), 1) == 1
    assert lib.SSL_CTX_use_PrivateKey_file(ctx, key.encode(), 1) == 1
    return lib, ctx


class Connection:
    def __init__(self, lib, ctx, sock, piece):
        self.lib, self.sock, self.piece = lib, sock, piece
        self.address = lib.SSL_new(ctx)
        self.ssl = ctypes.c_void_p(self.address)
        lib.SSL_set_fd(self.ssl, sock.fileno())

    def request(self):
        """Head of a request, or b'' at the end."""
        head, size = b"", self.piece or 7
        piece = ctypes.create_string_buffer(size)
        while not head.endswith(b"\r\n\r\n"):
            if not self.piece and self.lib.SSL_peek(self.ssl, piece, size) <= 0:
                return b""
            n = self.lib.SSL_read(self.ssl, piece, size)
            if n <= 0:
                return b""
            head += piece.raw[:n]
        return head

    def write(self, data):
        assert self.lib.SSL_write(self.ssl, data, len(data)) == len(data)

    def write_mapped(self, data):
        with tempfile.TemporaryFile() as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
            with mmap.mmap(f.fileno(), len(data), access=mmap.ACCESS_COPY) as m:
                view = (ctypes.c_char * len(data)).from_buffer(m)
                assert self.lib.SSL_write(self.ssl, view, len(data)) == len(data)
                del view

    def write_slowly(self, data):
        again = 0
        keep = ctypes.create_string_buffer(data, len(data))
        self.sock.setblocking(False)
        while self.lib.SSL_write(self.ssl, keep, len(data)) != len(data):
            assert self.lib.SSL_get_error(self.ssl, -1) == WANT_WRITE
            select.select([], [self.sock], [])
            again += 1
        self.sock.setblocking(True)
        print("again", again, flush=True)

    def serve(self, port):
        if self.lib.SSL_accept(self.ssl) == 1:
            print("connection", hex(self.address), port, flush=True)
            while (head := self.request()):
                path = head.split()[1]
                if path.startswith(b"/mapped"):
                    self.write_mapped(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + b"m" * 20000)
                elif path.startswith(b"/slow"):
                    self.write_slowly(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG + b"s" * BIG)
                else:
                    self.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        self.lib.SSL_free(self.ssl)
        self.sock.close()


def main():
    path, port, cert, key = sys.argv[1:5]
    listener = socket.create_server(("127.0.0.1", int(port)))
    print("listens", flush=True)
    time.sleep(float(sys.argv[5]) if len(sys.argv) > 5 else 0)
    lib, ctx = load(path, cert, key)
    print("loaded", flush=True)
    while True:
        sock, peer = listener.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        Connection(lib, ctx, sock, int(sys.argv[6]) if len(sys.argv) > 6 else 0).serve(peer[1])


if __name__ == "__main__":
    main()
