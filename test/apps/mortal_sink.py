# SPDX-License-Identifier: Apache-2.0
"""A back end to be killed: it writes what it takes to a file before it answers, and answers late.

usage: mortal_sink.py GRPC_PORT HTTP_PORT FILE
"""

import os
import pathlib
import signal
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "scenario"))

from harness.sink import Sink  # noqa: E402


def main(grpc_port, http_port, path):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def keep(signal_name, body):
        os.write(fd, struct.pack(">I", len(body)) + body)
        time.sleep(0.1)

    sink = Sink(grpc_port=grpc_port, http_port=http_port)
    sink.fault = keep
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
