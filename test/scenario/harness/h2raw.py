# SPDX-License-Identifier: Apache-2.0
"""An HTTP/2 client that does what it is told, frame by frame: for faults that no SDK shows."""

import socket
import struct
import time

import h2.config
import h2.connection
import h2.events


class H2:
    """One connection. `streams` holds per stream: headers, trailers, data, reset, ended."""

    def __init__(self, port, timeout=20.0):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.conn.initiate_connection()
        self.streams = {}
        self.goaway = None
        self.closed = False
        self.pings = 0
        self.flush()

    def sync(self):
        """Returns when the server has read all that was sent."""
        want = self.pings + 1
        self.conn.ping(b"12345678")
        self.flush()
        self.wait(lambda: self.pings >= want, what="answer to a ping")

    def flush(self):
        data = self.conn.data_to_send()
        if data:
            self.sock.sendall(data)

    def open(self, path, headers=(), end=False):
        sid = self.conn.get_next_available_stream_id()
        self.conn.send_headers(sid, [(":method", "POST"), (":scheme", "http"), (":path", path),
                                     (":authority", "test"), ("content-type", "application/grpc"),
                                     ("te", "trailers"), *headers], end_stream=end)
        self.streams[sid] = {"headers": {}, "data": b"", "reset": None, "ended": False}
        self.flush()
        return sid

    def send(self, sid, data, end=False):
        """Sends what the windows allow now; returns the number of bytes that went."""
        sent = 0
        while sent < len(data):
            room = min(self.conn.local_flow_control_window(sid), self.conn.max_outbound_frame_size)
            if room <= 0:
                break
            piece = data[sent:sent + room]
            sent += len(piece)
            self.conn.send_data(sid, piece, end_stream=end and sent == len(data))
        self.flush()
        return sent

    def pump(self, timeout=0.05):
        """Reads once, for at most `timeout` seconds."""
        self.sock.settimeout(timeout)
        try:
            data = self.sock.recv(1 << 16)
        except socket.timeout:
            return
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return
        for e in self.conn.receive_data(data):
            if isinstance(e, h2.events.PingAckReceived):
                self.pings += 1
            s = self.streams.get(getattr(e, "stream_id", None))
            if isinstance(e, h2.events.ConnectionTerminated):
                self.goaway = e.error_code
            elif s is None:
                continue
            elif isinstance(e, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                s["headers"].update((k.decode(), v.decode()) if isinstance(k, bytes) else (k, v)
                                    for k, v in e.headers)
            elif isinstance(e, h2.events.DataReceived):
                s["data"] += e.data
                self.conn.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
            elif isinstance(e, h2.events.StreamReset):
                s["reset"] = e.error_code
            elif isinstance(e, h2.events.StreamEnded):
                s["ended"] = True
        self.flush()

    def wait(self, condition, timeout=20.0, what="condition"):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
            assert not self.closed, f"{what}: the connection was closed"
            self.pump()

    def send_all(self, sid, data, timeout=20.0):
        """The whole body and the end of the stream, as the windows open."""
        deadline = time.monotonic() + timeout
        while data:
            data = data[self.send(sid, data, end=True):]
            if data:
                assert time.monotonic() < deadline, f"{len(data)} bytes could not be sent"
                self.pump()

    def answered(self, sid):
        return self.streams[sid]["ended"] or self.streams[sid]["reset"] is not None

    def grpc_status(self, sid):
        return self.streams[sid]["headers"].get("grpc-status")

    def close(self):
        self.sock.close()


def framed(body):
    """A gRPC message, not compressed."""
    return b"\0" + struct.pack(">I", len(body)) + body
