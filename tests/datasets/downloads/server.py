"""A web server that can be told to fail, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server serves and how, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    cut_after: list[int] = field(default_factory=list)  # bytes of the next responses, after which the connection breaks
    statuses: list[int] = field(default_factory=list)  # of the next responses, instead of files
    ranges: bool = True
    etags: bool = True
    lengths: bool = True
    pause: float = 0.0  # before each 64 KiB
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range of each request
    sent: int = 0  # bytes of bodies

    def etag(self, path: str) -> str:
        return f'"{hash(self.files[path]):x}"'


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve ``site`` on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.asked.append((self.path, asked))
            if site.statuses or self.path not in site.files:
                self.send_error(site.statuses.pop(0) if site.statuses else 404)
                return
            body = site.files[self.path]
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.ranges else 0
            if start and self.headers.get("If-Range", site.etag(self.path)) != site.etag(self.path):
                start = 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if site.etags:
                self.send_header("ETag", site.etag(self.path))
            if site.lengths:
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self._send(body[start:])

        def _send(self, body: bytes) -> None:
            body = body[: site.cut_after.pop(0)] if site.cut_after else body
            for begin in range(0, len(body), 1 << 16):
                time.sleep(site.pause)
                try:
                    self.wfile.write(body[begin : begin + (1 << 16)])
                except OSError:
                    return  # the client is gone
                site.sent += len(body[begin : begin + (1 << 16)])

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
