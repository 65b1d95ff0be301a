"""Where Horovod's ranks find each other: Horovod's own server, run by the launcher.

The launchers of several servers meet there first, so that no rank starts before all
servers are there and have the same table.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import socketserver
import sys
import threading
import time
from typing import Any, Dict, Iterator, Optional

from alexnet_estimator.console import note
from alexnet_estimator.errors import ConfigError, RankError
from alexnet_estimator.launch.environment import rendezvous_address
from alexnet_estimator.rank_table.local import is_own_address
from alexnet_estimator.rank_table.topology import Topology, format_ranks

DEFAULT_PORT = 29400
POLL_SECS = 0.25
REQUEST_SECS = 5
LINGER_SECS = 2.0
SCOPE = "launchers"


@dataclasses.dataclass(frozen=True)
class Store:
    """Where ranks leave their addresses for each other.

    Args:
        port: that the ranks have to use.
        topology: the job.
        server: that runs here; None: it runs on the first server.
    """

    port: int
    topology: Topology
    server: Optional[Any] = None

    def tell_who_is_missing(self) -> None:
        """Name the ranks for which the others have waited in vain, if that was so."""
        if self.server is None:
            return
        with self.server.cache_lock:
            names = set(self.server.cache.get("global", ()))
        ranks = range(self.topology.num_ranks)
        missing = [rank for rank in ranks if f"rank_{rank}" not in names]
        if names and missing:  # All names are removed when the group is complete.
            print(f"{format_ranks(missing)} never joined the group", file=sys.stderr)


@contextlib.contextmanager
def serve(topology: Topology, server_id: str, port: int = 0) -> Iterator[Store]:
    """Run the server for the time of a ``with`` block, on the first server only.

    Args:
        topology: the job.
        server_id: the server that we are on.
        port: 0 for a free one (one server) or ``DEFAULT_PORT`` (several).

    Yields:
        Where ranks find each other.

    Raises:
        ConfigError: Horovod is missing, the port is taken.
    """
    if len(topology.servers) > 1:
        port = port or DEFAULT_PORT
    if server_id != topology.servers[0]:
        yield Store(port, topology)
        return
    server = _make_server(topology, port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Store(server.server_address[1], topology, server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def meet(topology: Topology, server_id: str, port: int, timeout_secs: float) -> None:
    """Wait until the launchers of all servers have come, with the same table.

    Args:
        topology: the job.
        server_id: the server that we are on.
        port: of the server that ``serve`` runs.
        timeout_secs: how long to wait.

    Raises:
        RankError: some did not come; names their ranks.
        ConfigError: the tables differ.
    """
    note(
        f"server {server_id} waits up to {timeout_secs:g} s for the others of "
        f"{', '.join(topology.servers)}"
    )
    deadline = time.monotonic() + timeout_secs
    own, digests = _digest(topology), {}  # type: str, Dict[str, Optional[str]]
    while time.monotonic() < deadline:
        try:
            digests = _exchange(topology, server_id, port)
        except (OSError, http.client.HTTPException):
            pass  # The first server has not come yet.
        seen = set(digests.values())
        if seen == {own}:
            return
        if seen - {own, None}:
            time.sleep(LINGER_SECS)  # Let the others see it, too.
            break
        time.sleep(POLL_SECS)
    _refuse(topology, digests, timeout_secs)


def _exchange(
    topology: Topology, server_id: str, port: int
) -> Dict[str, Optional[str]]:
    """Leave the digest of our table; return those of all servers, None if missing."""
    own_index = topology.servers.index(server_id)
    _request(topology, port, "PUT", own_index, _digest(topology))
    return {
        server: _request(topology, port, "GET", index)
        for index, server in enumerate(topology.servers)
    }


def _request(
    topology: Topology, port: int, method: str, index: int, body: str = ""
) -> Optional[str]:
    connection = http.client.HTTPConnection(
        rendezvous_address(topology), port, timeout=REQUEST_SECS
    )
    with contextlib.closing(connection):
        connection.request(method, f"/{SCOPE}/{index}", body.encode())
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
        return text if response.status == http.client.OK else None


def _refuse(
    topology: Topology, digests: Dict[str, Optional[str]], timeout_secs: float
) -> None:
    own = _digest(topology)
    different = [s for s, digest in digests.items() if digest not in (own, None)]
    if different:
        raise ConfigError(
            f"server {', '.join(different)} was started with another rank table: use "
            "the same file everywhere",
            topology.path,
        )
    # Who cannot reach the first server knows nothing of the others.
    missing = [s for s in topology.servers if digests and digests[s] is None]
    names = [
        f"{server} ({format_ranks(topology.ranks_of(server))})"
        for server in missing or topology.servers[:1]
    ]
    raise RankError(
        f"server {', '.join(names)} did not come within {timeout_secs:g} s: start the "
        "same command there"
    )


def _digest(topology: Topology) -> str:
    return hashlib.sha256(repr(topology.devices).encode()).hexdigest()


def _make_server(topology: Topology, port: int) -> Any:
    try:
        from horovod.runner.common.util import hosts
        from horovod.runner.http import http_server
    except ImportError as error:
        raise ConfigError(
            "several ranks without Ascend hardware need Horovod, built with Gloo and "
            f"TensorFlow, and it cannot be imported: {error}"
        ) from error

    class Server(http_server.RendezvousHTTPServer):
        daemon_threads = True

        def server_bind(self) -> None:
            # HTTPServer's own asks the name server, which may not be there.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = self.server_address[:2]

    address = rendezvous_address(topology)
    bind_to = address if is_own_address(address) else ""
    try:
        server = Server((bind_to, port), http_server.RendezvousHandler, verbose=0)
    except OSError as error:
        raise ConfigError(
            f"port {port} of {address} cannot be used ({error.strerror}): is another "
            "run going on? --rendezvous_port takes another one, the same everywhere"
        ) from error
    sizes = [hosts.HostInfo(s, len(topology.ranks_of(s))) for s in topology.servers]
    server.init(hosts.get_host_assignments(sizes, topology.num_ranks))
    return server
