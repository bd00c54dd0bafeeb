"""An old address that leads to the new one: links that were written down keep opening."""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from windrow.errors import StoreError


class Redirect:
    """Answers every GET at a port with "temporarily at `target`", until it is stopped.

    Parameters
    ----------
    host, port
        Where the old address was.
    target
        The new address, without a slash at its end, such as ``http://127.0.0.1:8080``.

    Raises
    ------
    StoreError
        If something else listens on the port.

    Examples
    --------
    >>> from http.client import HTTPConnection
    >>> redirect = Redirect("127.0.0.1", 0, "http://127.0.0.1:8080")
    >>> asking = HTTPConnection(redirect.url.removeprefix("http://"))
    >>> asking.request("GET", "/ui/reports/churn/drift.html")
    >>> asking.getresponse().headers["Location"]
    'http://127.0.0.1:8080/ui/reports/churn/drift.html'
    >>> asking.close(), redirect.stop()
    (None, None)
    """

    def __init__(self, host: str, port: int, target: str) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(target))
        except OSError as error:
            raise StoreError(
                f"port {port} of {host} cannot be used: {error.strerror}", next_step="choose another port"
            ) from error
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="redirect", daemon=True).start()

    def stop(self) -> None:
        """Give the port back."""
        self._server.shutdown()
        self._server.server_close()


def _handler(target: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(HTTPStatus.TEMPORARY_REDIRECT)
            # The path is the caller's own text: what could end the header line is never in it.
            self.send_header("Location", target + "/" + self.path.lstrip("/"))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's own word
            return

    return Handler
