// SPDX-License-Identifier: Apache-2.0
// An HTTPS server whose TLS library never touches a socket: node moves the bytes through memory.
//
//     node tls_in_memory.js PORT CERT KEY

const fs = require("fs");
const https = require("https");

const [port, cert, key] = process.argv.slice(2);
https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (request, response) => {
  response.setHeader("Content-Length", "5");
  response.end("hello");
}).listen(Number(port), "127.0.0.1", () => console.log("loaded"));
