"""The launch backend of Horovod, which serves the store for Gloo's rendezvous.

Before the ranks start, the launchers of several servers use the store to wait for each
other and to compare their rank tables.
"""

import contextlib
import hashlib
import http.client
import importlib.util
import time
from typing import Dict, Iterator, List, Optional

from alexnet_estimator import rank_environment as names
from alexnet_estimator.console import note, tell
from alexnet_estimator.errors import ConfigError, RankError
from alexnet_estimator.launch.group import Group
from alexnet_estimator.launch.store import Store
from alexnet_estimator.rank_table.local import interface_of, is_own_address
from alexnet_estimator.rank_table.topology import Topology, format_ranks

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 29400
POLL_SECS = 0.25
REQUEST_SECS = 5
LINGER_SECS = 2.0
LAUNCHERS = "launchers"  # Scope of the launchers in the store.


def find_missing() -> List[str]:
    """Return a problem with its remedy if Horovod is not installed."""
    if importlib.util.find_spec("horovod") is not None:
        return []
    return [
        "several ranks on CPUs or GPUs need Horovod with Gloo and TensorFlow, which is "
        "not installed: run `bash launch/setup_env.sh --with-horovod`"
    ]


@contextlib.contextmanager
def describe_ranks(group: Group) -> Iterator[List[Dict[str, str]]]:
    """Yield the environment variables of each rank of a server.

    Raises:
        ConfigError: Horovod is missing, the port is in use, or servers have different
            rank tables.
        RankError: The command was not started on all servers in time.
    """
    problems = find_missing()
    if problems:
        raise ConfigError(problems)
    servers = group.topology.servers
    is_alone = len(servers) == 1
    address = LOOPBACK if is_alone else servers[0]
    port = group.port or (0 if is_alone else DEFAULT_PORT)
    with contextlib.ExitStack() as stack:
        if group.server_id == servers[0]:
            store = stack.enter_context(serve(address, port, is_secret=is_alone))
            stack.callback(_tell_who_is_missing, store, group.topology.num_ranks)
            port = store.port
            address = store.address_for_gloo(address)
        if not is_alone:
            secs = names.read_start_timeout_secs(group.environ)
            _Meeting(group.topology, group.server_id, port).wait(secs)
        yield _variables(group, address, port)


@contextlib.contextmanager
def serve(address: str, port: int, is_secret: bool) -> Iterator[Store]:
    """Serve a store during a ``with`` block.

    Raises:
        ConfigError: The port is in use.
    """
    bind_to = address if is_own_address(address) else ""
    try:
        store = Store(bind_to, port, is_secret)
    except OSError as error:
        raise ConfigError(
            f"port {port} of {address} cannot be used ({error.strerror}): end the job "
            "that uses it, or give another --rendezvous_port on all servers"
        ) from error
    with store.serving():
        yield store


def _variables(group: Group, address: str, port: int) -> List[Dict[str, str]]:
    """Return the variables that Horovod's own launcher would set for each rank."""
    servers, environ = group.topology.servers, group.environ
    devices = group.topology.devices_of(group.server_id)
    shared = {
        names.HOROVOD_SIZE: str(group.topology.num_ranks),
        names.HOROVOD_LOCAL_SIZE: str(len(devices)),
        names.HOROVOD_CROSS_RANK: str(servers.index(group.server_id)),
        names.HOROVOD_CROSS_SIZE: str(len(servers)),
        names.HOROVOD_HOSTNAME: group.server_id,
        names.HOROVOD_CONTROLLER: "gloo",
        names.HOROVOD_CPU_OPERATIONS: "gloo",
        names.HOROVOD_ADDRESS: address,
        names.HOROVOD_PORT: str(port),
        # The default of 30 s is too short if eight ranks load TensorFlow on few cores.
        names.HOROVOD_TIMEOUT: environ.get(names.HOROVOD_TIMEOUT, "120"),
    }
    own_address = group.server_id if len(servers) > 1 else LOOPBACK
    interface = environ.get(names.HOROVOD_INTERFACE) or interface_of(own_address)
    if interface:
        shared[names.HOROVOD_INTERFACE] = interface
    return [
        {
            **shared,
            names.HOROVOD_RANK: str(device.rank),
            names.HOROVOD_LOCAL_RANK: str(local_rank),
            names.GPU: str(device.device_id),
        }
        for local_rank, device in enumerate(devices)
    ]


def _tell_who_is_missing(store: Store, num_ranks: int) -> None:
    """Print which ranks are missing, if others have waited for them.

    Gloo deletes the names when the group is complete.
    """
    joined = store.keys_of("global")
    missing = [rank for rank in range(num_ranks) if f"rank_{rank}" not in joined]
    if joined and missing:
        tell(f"{format_ranks(missing)} did not join the group")


class _Meeting:
    """The rendezvous of the launchers of all servers, which compare their rank tables.

    Args:
        topology: Ranks of all servers.
        server_id: ID of this server.
        port: Port of the store on the first server.
    """

    def __init__(self, topology: Topology, server_id: str, port: int):
        self._topology, self._server_id, self._port = topology, server_id, port
        self._digest = hashlib.sha256(repr(topology.devices).encode()).hexdigest()

    def wait(self, timeout_secs: float) -> None:
        """Wait until all launchers have started, and compare their rank tables.

        Raises:
            RankError: Launchers are missing; the message names their ranks.
            ConfigError: The rank tables differ.
        """
        note(
            f"server {self._server_id} waits up to {timeout_secs:g} s until all of "
            f"{', '.join(self._topology.servers)} have started"
        )
        deadline = time.monotonic() + timeout_secs
        digests: Dict[str, Optional[str]] = {}
        while time.monotonic() < deadline:
            # Requests fail until the launcher of the first server has started.
            with contextlib.suppress(OSError, http.client.HTTPException):
                digests = self._exchange()
            seen = set(digests.values())
            if seen == {self._digest}:
                return
            if seen - {self._digest, None}:
                time.sleep(LINGER_SECS)  # The other launchers have to see it, too.
                break
            time.sleep(POLL_SECS)
        self._refuse(digests, timeout_secs)

    def _exchange(self) -> Dict[str, Optional[str]]:
        """Store the digest of this table, and return those of all servers, or None."""
        servers = self._topology.servers
        self._request("PUT", servers.index(self._server_id), self._digest)
        return {server: self._request("GET", i) for i, server in enumerate(servers)}

    def _request(self, method: str, index: int, body: str = "") -> Optional[str]:
        connection = http.client.HTTPConnection(
            self._topology.servers[0], self._port, timeout=REQUEST_SECS
        )
        with contextlib.closing(connection):
            connection.request(method, f"/{LAUNCHERS}/{index}", body.encode())
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            return text if response.status == http.client.OK else None

    def _refuse(self, digests: Dict[str, Optional[str]], timeout_secs: float) -> None:
        topology = self._topology
        different = [s for s, d in digests.items() if d not in (self._digest, None)]
        if different:
            raise ConfigError(
                f"server {', '.join(different)} was started with another rank table: "
                "use the same file on all servers",
                topology.path,
            )
        # Without a connection to the first server, nothing is known about the others.
        missing = [s for s in topology.servers if digests and digests[s] is None]
        servers = [
            f"{server} ({format_ranks(topology.ranks_of(server))})"
            for server in missing or topology.servers[:1]
        ]
        raise RankError(
            f"server {', '.join(servers)} did not join within {timeout_secs:g} s: "
            "start the same command there"
        )
