"""An S3 server on loopback, and a gate before it that cuts connections."""

import os
import socket
import threading
import uuid

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "bucket"


class Gate:
    """Passes connections on to a server, and cuts some amid an answer.

    `cuts` of them, after `after` bytes.

    Args:
        server: Host and port.
    """

    def __init__(self, server):
        self.server = server
        self.cuts = self.after = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self):
        self.socket.close()

    def _listen(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            server = socket.create_connection(self.server)
            for pair in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pass,
                    args=(*pair, pair[0] is server),
                    daemon=True,
                ).start()

    def _pass(self, source, target, answers):
        passed = 0
        try:
            while data := source.recv(16384):
                passed += len(data)
                if answers and self.cuts and passed > self.after:
                    self.cuts -= 1
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            finally:
                end.close()


@pytest.fixture(scope="session")
def gate():
    """The gate of an S3 server; TensorFlow's S3 goes through it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    gate = Gate((host, port))
    os.environ.update(
        S3_ENDPOINT=gate.address,
        AWS_ACCESS_KEY_ID="nobody",
        AWS_SECRET_ACCESS_KEY="nothing",
        AWS_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
    )
    boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1"
    ).create_bucket(Bucket=BUCKET)
    yield gate
    gate.close()
    server.stop()


@pytest.fixture
def cloud(gate):
    """The address of a folder of its own."""
    gate.cuts = 0
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
