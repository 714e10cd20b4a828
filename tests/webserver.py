"""A web server on loopback that breaks connections when it is told to."""

import functools
import http.server
import os
import threading
from contextlib import contextmanager


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; knows ranges and versions.

    `server.cuts` of the answers end after `server.after` bytes, `server.busy`
    of them are 503.
    """

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        path = self.translate_path(self.path)
        if server.forbidden:
            return self.send_error(403)
        if not os.path.isfile(path):
            return self.send_error(404)
        if server.busy:
            server.busy -= 1
            return self.send_error(503)
        with open(path, "rb") as file:
            data = file.read()
        version = f'"{hash(data)}"'
        begin = 0
        wanted = self.headers.get("Range")
        if server.ranges and wanted and self.headers["If-Range"] == version:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if begin else 200)
        if server.ranges:
            self.send_header("ETag", version)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        data = data[begin:]
        if server.cuts and len(data) > server.after:
            server.cuts -= 1
            data = data[: server.after]
            self.close_connection = True
        self.wfile.write(data)


class Server(http.server.ThreadingHTTPServer):
    """Does not tell of clients that hang up."""

    def handle_error(self, request, client_address):
        pass


@contextmanager
def serve(folder):
    """Serves a folder; yields the server, its `address` without "/"."""
    server = Server(
        ("127.0.0.1", 0),
        functools.partial(Handler, directory=os.fspath(folder)),
    )
    server.asked, server.cuts, server.after, server.busy = [], 0, 0, 0
    server.ranges, server.forbidden = True, False
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
