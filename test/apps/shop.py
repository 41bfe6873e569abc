# SPDX-License-Identifier: Apache-2.0
"""A small shop over HTTP: something to observe. usage: shop.py PORT"""

import http.server
import json
import sys
import time


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.partition("?")[0]
        what = path.rpartition("/")[2]  # behind a proxy there may be a prefix
        if what == "slow":
            time.sleep(1.2)
        status = 503 if what == "broken" else 200
        body = json.dumps({"path": path, "status": status}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except BrokenPipeError:
            pass  # whoever asked has left

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Shop)
    server.daemon_threads = True
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
