"""A page in a real Chromium, and the server that it comes from."""

import json
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.functional.stack import PATIENCE
from tests.programs import program

_PAGE = """\
<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<script>
// One after the other: two requests at once may arrive in any order.
let reported = Promise.resolve();
const report = (what) => {
  const body = JSON.stringify(what);
  reported = reported.then(() => fetch("/report", {method: "POST", body}));
};
%s
</script>
"""


class PageServer:
    """Serves one page on an origin of its own, and takes what the page reports."""

    def __init__(self) -> None:
        #: JSON that pages have passed to `report`, in order of arrival.
        self.reports: queue.Queue[Any] = queue.Queue()
        self._page = b""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="a page's server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def shown(self, script: str, profile: Path) -> Iterator[None]:
        """Show a page with this script in a browser; `profile` is a folder for the browser's."""
        self._page = (_PAGE % script).encode()
        # A folder of its own for what it leaves when it is terminated. Its path is short: there
        # is a socket in it.
        with (
            tempfile.TemporaryDirectory(prefix="b-") as own,
            subprocess.Popen(
                (
                    *(
                        program("chromium", "chromium-browser", "google-chrome"),
                        "--headless",
                        "--disable-gpu",
                        "--disable-quic",
                        "--no-first-run",
                    ),
                    *("--disable-background-networking", "--disable-component-update"),
                    *("--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}"),
                    # Chromium's own sandbox does not run as root.
                    *(("--no-sandbox",) if os.geteuid() == 0 else ()),
                    # With it, headless Chromium stays until it is told to leave.
                    *("--remote-debugging-port=0", f"{self.origin}/"),
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": own},
            ) as browser,
        ):
            try:
                yield
            finally:
                browser.terminate()

    def next_report(self) -> Any:
        """Wait for what the page reports next."""
        return self.reports.get(timeout=PATIENCE)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(server._page)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(HTTPStatus.NO_CONTENT)
                self.end_headers()
                server.reports.put(json.loads(body))

            def log_message(self, *_: object) -> None:
                """Say nothing: the page is a test's."""

        return Handler
