"""Ranks on CPUs and GPUs: Horovod's processes meet at a store that we serve.

The launchers of several servers meet there first, so that no rank starts before all
servers are there and have the same table.
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
LAUNCHERS = "launchers"  # Where in the store the launchers meet.


def find_missing() -> List[str]:
    """Return what this machine lacks for ranks of Horovod, with the remedy."""
    if importlib.util.find_spec("horovod") is not None:
        return []
    return [
        "several ranks without Ascend hardware need Horovod, built with Gloo and "
        "TensorFlow, and it is not installed: see launch/setup_env.sh"
    ]


@contextlib.contextmanager
def describe_ranks(group: Group) -> Iterator[List[Dict[str, str]]]:
    """Yield what Horovod's own launcher would tell each rank of a server.

    Raises:
        ConfigError: Horovod is missing, the port is taken, or servers have different
            tables.
        RankError: A server did not come.
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
    """Serve a store for the time of a ``with`` block.

    Raises:
        ConfigError: The port is taken.
    """
    bind_to = address if is_own_address(address) else ""
    try:
        store = Store(bind_to, port, is_secret)
    except OSError as error:
        raise ConfigError(
            f"port {port} of {address} cannot be used ({error.strerror}): is another "
            "run going on? --rendezvous_port takes another one, the same everywhere"
        ) from error
    with store.serving():
        yield store


def _variables(group: Group, address: str, port: int) -> List[Dict[str, str]]:
    """Return what Horovod's own launcher would set, for each rank of a server."""
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
        # Its 30 s are short where eight ranks load TensorFlow on few cores.
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
    """Name the ranks that others have waited for; a complete group clears its names."""
    joined = store.keys_of("global")
    missing = [rank for rank in range(num_ranks) if f"rank_{rank}" not in joined]
    if joined and missing:
        tell(f"{format_ranks(missing)} had not joined the group")


class _Meeting:
    """The launchers of all servers, who compare their tables.

    Args:
        topology: Whole job.
        server_id: This server.
        port: Port of the store on the first server.
    """

    def __init__(self, topology: Topology, server_id: str, port: int):
        self._topology, self._server_id, self._port = topology, server_id, port
        self._digest = hashlib.sha256(repr(topology.devices).encode()).hexdigest()

    def wait(self, timeout_secs: float) -> None:
        """Wait until all have come, with the same table.

        Raises:
            RankError: Some did not come in time; names their ranks.
            ConfigError: The tables differ.
        """
        note(
            f"server {self._server_id} waits up to {timeout_secs:g} s for the others "
            f"of {', '.join(self._topology.servers)}"
        )
        deadline = time.monotonic() + timeout_secs
        digests: Dict[str, Optional[str]] = {}
        while time.monotonic() < deadline:
            # Until the first server has come, nobody answers.
            with contextlib.suppress(OSError, http.client.HTTPException):
                digests = self._exchange()
            seen = set(digests.values())
            if seen == {self._digest}:
                return
            if seen - {self._digest, None}:
                time.sleep(LINGER_SECS)  # Let the others see it, too.
                break
            time.sleep(POLL_SECS)
        self._refuse(digests, timeout_secs)

    def _exchange(self) -> Dict[str, Optional[str]]:
        """Leave the digest of our table; return all servers', None where missing."""
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
                "use the same file everywhere",
                topology.path,
            )
        # Who cannot reach the first server knows nothing of the others.
        missing = [s for s in topology.servers if digests and digests[s] is None]
        servers = [
            f"{server} ({format_ranks(topology.ranks_of(server))})"
            for server in missing or topology.servers[:1]
        ]
        raise RankError(
            f"server {', '.join(servers)} did not come within {timeout_secs:g} s: "
            "start the same command there"
        )
