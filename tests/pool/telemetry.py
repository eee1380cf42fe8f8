"""Collects spans of OTLP and of Datadog, and envelopes of Sentry, over HTTP. A GET of / returns how
many requests of the application they name, all and different ones."""

import gzip
import http.server
import json
import re


seen = []


def spans(body):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    request = ExportTraceServiceRequest.FromString(body)
    scopes = (scope for resource in request.resource_spans for scope in resource.scope_spans)
    return [span.name for scope in scopes for span in scope.spans]


def events(body):
    return re.findall(rb'"message": ?"(/[^"]*)"', body)


def traces(body):
    # The strings of MessagePack stand in the body as they are.
    return re.findall(rb"request (/[0-9]+)", body)


KINDS = {"/v1/traces": spans, "/v0.4/traces": traces, "/v0.5/traces": traces}


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self):
        try:
            super().handle()
        except ConnectionResetError:
            pass  # A worker has exited.

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        seen.extend(KINDS.get(self.path, events)(body))
        self.answer(b"{}")

    def do_GET(self):
        # Datadog's packages ask for /info, which old agents do not have.
        status = 200 if self.path == "/" else 404
        self.answer(json.dumps([len(seen), len(set(seen))]).encode(), status)

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
print(f"port {server.server_address[1]}", flush=True)
server.serve_forever()
