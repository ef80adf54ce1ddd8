"""Receives OTLP logs with the messages that OpenTelemetry has generated of its own definitions.

Its arguments are `http` or `grpc`, a port and a folder. It appends each record that it takes to the file `received`, as
JSON with the attributes of its resource, and the path and the headers of each request to `headers`. With certificates
in the folder, it takes only requests over TLS from those who show one. Of the file `answers`, it gives the first status
away with each request: a number of HTTP, or a name of gRPC, which can have `+` and seconds to wait after it. Over gRPC,
it ends connections after as many milliseconds as the file `age` says.
"""

import concurrent.futures
import gzip
import http.server
import json
import os
import pathlib
import ssl
import sys

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

PROTOCOL, PORT, FOLDER = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])


def forget_torn_record():
    """Removes what a receiver that was killed has written of a record, which it has not acknowledged."""
    file = FOLDER / "received"
    if file.exists():
        os.truncate(file, file.read_bytes().rfind(b"\n") + 1)


def next_answer():
    file = FOLDER / "answers"
    answers = file.read_text().split() if file.exists() else []
    if not answers:
        return None
    new = FOLDER / "answers.new"
    new.write_text(" ".join(answers[1:]))
    os.rename(new, file)
    return answers[0]


def note(path, headers):
    with (FOLDER / "headers").open("a") as file:
        print(path, json.dumps(headers), file=file)


def records(request):
    for logs in request.resource_logs:
        resource = MessageToDict(logs.resource).get("attributes", [])
        for scope in logs.scope_logs:
            for record in scope.log_records:
                yield {"resource": resource, "scope": scope.scope.name, **MessageToDict(record)}


def take(request):
    """The answer to a request, unless it is refused."""
    taken, response = list(records(request)), ExportLogsServiceResponse()
    rejected = [record for record in taken if "reject" in record["body"]["stringValue"]]
    if any("refuse" in record["body"]["stringValue"] for record in taken):
        return None
    if rejected:
        taken = [record for record in taken if record not in rejected]
        response.partial_success.rejected_log_records = len(rejected)
        response.partial_success.error_message = "it is not wanted"
    with (FOLDER / "received").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in taken)
    return response


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        note(self.path, dict(self.headers.items()))
        content = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        status = int(next_answer() or 200)
        response = take(ExportLogsServiceRequest.FromString(content)) if status == 200 else ExportLogsServiceResponse()
        if response is None:
            status, response = 400, ExportLogsServiceResponse()
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


class Service(logs_service_pb2_grpc.LogsServiceServicer):
    def Export(self, request, context):
        # The most that a client waits is not among its headers.
        headers = dict(context.invocation_metadata()) | {"time": context.time_remaining()}
        note(context.peer(), headers)
        answer = next_answer()
        if answer:
            name, _, seconds = answer.partition("+")
            status = grpc.StatusCode[name]
            if seconds:
                details = status_pb2.Status(code=status.value[0], message="later")
                info = error_details_pb2.RetryInfo()
                info.retry_delay.seconds = int(seconds)
                details.details.add().Pack(info)
                context.set_trailing_metadata((("grpc-status-details-bin", details.SerializeToString()),))
            context.abort(status, "wähle secret-1\x1b[1m")
        response = take(request)
        if response is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "ungültig\x1b\n")
        return response


def certificates():
    names = ["ca.pem", "certificate.pem", "key.pem"]
    return [FOLDER / name for name in names] if (FOLDER / "ca.pem").exists() else None


def serve_http():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    if files := certificates():
        ca, certificate, key = files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


def serve_grpc():
    options, age = [("grpc.so_reuseport", 0)], FOLDER / "age"
    if age.exists():
        options.append(("grpc.max_connection_age_ms", int(age.read_text())))
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=options)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Service(), server)
    address = f"127.0.0.1:{PORT}"
    if files := certificates():
        ca, certificate, key = [file.read_bytes() for file in files]
        server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)], ca, True))
    else:
        server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


forget_torn_record()
{"http": serve_http, "grpc": serve_grpc}[PROTOCOL]()
