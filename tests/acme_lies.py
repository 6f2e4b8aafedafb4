"""Stands before an ACME server: acme_lies.py PORT PORT-OF-THE-SERVER FOLDER
While there is a file `lie` in the folder, the certificates that it issues are cut in half. While there is a file `renew`,
it tells when to renew (RFC 9773), which Pebble of Debian 12 cannot: the certificate whose name is in the file since an
hour, any other tomorrow. All else is passed on."""

import datetime
import http.client
import http.server
import json
import os
import ssl
import sys

RENEWALS = "/renewal-info/"
port, behind, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


class Passed(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith(RENEWALS):
            return self.tell_when_to_renew(self.path.removeprefix(RENEWALS))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        trusted = ssl.create_default_context(cafile=f"{folder}/authority.pem")
        server = http.client.HTTPSConnection("localhost", behind, context=trusted)
        try:
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
        except OSError:
            self.close_connection = True
            return
        content = answer.read()
        if answer.headers.get_content_type() == "application/pem-certificate-chain" and os.path.exists(f"{folder}/lie"):
            content = content[: len(content) // 4]
        if self.path == "/dir" and os.path.exists(f"{folder}/renew"):
            content = json.dumps(json.loads(content) | {"renewalInfo": f"https://localhost:{port}{RENEWALS[:-1]}"}).encode()
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_GET

    def tell_when_to_renew(self, name):
        with open(f"{folder}/renew") as renew:
            start = datetime.timedelta(hours=-1 if renew.read().strip() == name else 24)
        with open(f"{folder}/asked-when-to-renew", "a") as asked:
            print(name, file=asked)
        start += datetime.datetime.now(datetime.timezone.utc)
        window = {"start": start.isoformat(), "end": (start + datetime.timedelta(minutes=1)).isoformat()}
        content = json.dumps({"suggestedWindow": window}).encode()
        self.send_response_only(200)
        for field, value in ("Content-Type", "application/json"), ("Retry-After", "21600"), ("Content-Length", len(content)):
            self.send_header(field, value)
        self.end_headers()
        self.wfile.write(content)


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Passed)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{folder}/authority.pem", f"{folder}/authority.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
