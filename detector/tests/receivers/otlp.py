"""Receives OTLP logs over HTTP with the messages that OpenTelemetry has generated of its own definitions.

Its arguments are a port and a folder. It appends each record that it takes to the file `received`, as JSON with the
attributes of its resource, and the headers of each request to `headers`. With certificates in the folder, it takes only
requests over TLS from those who show one. Of the file `answers`, it gives the first status away with each request.
"""

import gzip
import http.server
import json
import os
import pathlib
import ssl
import sys

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

PORT, FOLDER = int(sys.argv[1]), pathlib.Path(sys.argv[2])


def next_answer():
    file = FOLDER / "answers"
    answers = file.read_text().split() if file.exists() else []
    if not answers:
        return 200
    new = FOLDER / "answers.new"
    new.write_text(" ".join(answers[1:]))
    os.rename(new, file)
    return int(answers[0])


def records(request):
    for logs in request.resource_logs:
        resource = MessageToDict(logs.resource).get("attributes", [])
        for scope in logs.scope_logs:
            for record in scope.log_records:
                yield {"resource": resource, "scope": scope.scope.name, **MessageToDict(record)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        with (FOLDER / "headers").open("a") as file:
            print(self.path, json.dumps(dict(self.headers.items())), file=file)
        content = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        request = ExportLogsServiceRequest.FromString(content)
        taken = list(records(request))
        status, response = next_answer(), ExportLogsServiceResponse()
        rejected = [record for record in taken if "reject" in record["body"]["stringValue"]]
        if status == 200 and any("refuse" in record["body"]["stringValue"] for record in taken):
            status = 400
        if status == 200 and rejected:
            taken = [record for record in taken if record not in rejected]
            response.partial_success.rejected_log_records = len(rejected)
            response.partial_success.error_message = "it is not wanted"
        if status == 200:
            with (FOLDER / "received").open("a") as file:
                file.writelines(json.dumps(record) + "\n" for record in taken)
        answer = response.SerializeToString()
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "3")
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
if (FOLDER / "ca.pem").exists():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=FOLDER / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(FOLDER / "certificate.pem", FOLDER / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
