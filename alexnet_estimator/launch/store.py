"""A small key-value store over HTTP for the rendezvous of Gloo."""

import contextlib
import http.server
import secrets
import socketserver
import threading
from typing import Any, Dict, Iterator, Set, Tuple

# A value holds the addresses of one rank: a few hundred bytes for each other rank.
MAX_VALUE_BYTES = 1 << 20
MAX_KEYS = 1 << 16
REQUEST_SECS = 10


class Store(socketserver.ThreadingTCPServer):
    """Answers Gloo's requests ``GET``, ``PUT`` and ``DELETE`` of ``/SCOPE/KEY``.

    Args:
        host: Address to listen on; empty for all addresses of this machine.
        port: Port to listen on; 0 for any free port.
        is_secret: Whether requests need a random path before ``/SCOPE/KEY``.  Gloo
            sends neither passwords nor headers, but it appends ``:PORT/SCOPE/KEY`` to
            the address, which can therefore contain a secret.

    Raises:
        OSError: The port cannot be used.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int, is_secret: bool):
        super().__init__((host, port), _Handler)
        self.port = int(self.server_address[1])
        self._secret = secrets.token_hex(16) if is_secret else ""
        self.prefix = f"/{self._secret}:{self.port}" if is_secret else ""
        self._lock = threading.Lock()
        self._values: Dict[Tuple[str, str], bytes] = {}
        self._deleted: Set[Tuple[str, str]] = set()

    def address_for_gloo(self, address: str) -> str:
        """Return the address of this store for Gloo, with the secret if it has one."""
        return f"{address}:{self.port}/{self._secret}" if self._secret else address

    def keys_of(self, scope: str) -> Set[str]:
        """Return the keys of a scope."""
        with self._lock:
            return {key for name, key in self._values if name == scope}

    def act(self, method: str, name: Tuple[str, str], body: bytes) -> Tuple[int, bytes]:
        """Execute a request, and return the HTTP status and the content."""
        with self._lock:
            if method == "GET":
                value = self._values.get(name)
                return (404, b"") if value is None else (200, value)
            if method == "PUT":
                if len(self._values) >= MAX_KEYS:
                    return 413, b""
                self._values[name] = body
                return 200, b""
            # A rank deletes its key when it has read those of the others, which may
            # still have to read this one.  The scope is removed when all ranks have
            # deleted their keys.
            self._deleted.add(name)
            scope = {other for other in self._values if other[0] == name[0]}
            if scope <= self._deleted:
                self._deleted -= scope
                for other in scope:
                    del self._values[other]
            return 200, b""

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Answer requests during a ``with`` block."""
        thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close the connection early, which are not ranks."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Store
    timeout = REQUEST_SECS

    def do_GET(self) -> None:
        """Answer a request; refuse requests that a rank would not send."""
        prefix, *name = self.path.rsplit("/", 2)
        length = self.headers.get("Content-Length") or "0"
        code, content = 400, b""
        if prefix == self.server.prefix and len(name) == 2 and length.isdecimal():
            code = 413
            if int(length) <= MAX_VALUE_BYTES:
                body = self.rfile.read(int(length))
                code, content = self.server.act(self.command, (name[0], name[1]), body)
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_DELETE = do_GET

    def log_message(self, *arguments: Any) -> None:
        """Do not log requests."""
