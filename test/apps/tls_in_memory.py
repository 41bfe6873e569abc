# SPDX-License-Identifier: Apache-2.0
"""An HTTPS server whose TLS library never touches a socket: asyncio moves the bytes through memory.

    tls_in_memory.py PORT CERT KEY
"""

import asyncio
import ssl
import sys


async def serve(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(sys.argv[2], sys.argv[3])
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), ssl=ctx)
    print("loaded", flush=True)
    await server.serve_forever()


asyncio.run(main())
