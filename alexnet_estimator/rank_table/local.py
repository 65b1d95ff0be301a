"""Which of the table's servers is the machine that we run on."""

import fcntl
import ipaddress
import socket
import struct
from typing import Dict, Optional

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.rank_table.topology import Topology

SIOCGIFADDR = 0x8915  # Linux: ask for the IPv4 address of an interface.


def local_server(topology: Topology, server_id: Optional[str] = None) -> str:
    """Return the id of the server that we run on.

    Args:
        topology: the job.
        server_id: says which server this is; needed where the machine does not know
            its own address, e.g. in a container with a network of its own.

    Raises:
        ConfigError: not in the table, or not to be found out.
    """
    servers = topology.servers
    if server_id is not None:
        if server_id in servers:
            return server_id
        raise ConfigError(
            f"server {server_id} is not in the table; it has {', '.join(servers)}",
            topology.path,
        )
    if len(servers) == 1:
        return servers[0]
    own = [server for server in servers if is_own_address(server)]
    if len(own) == 1:
        return own[0]
    if own:
        found = f"{' and '.join(own)} are all addresses of this machine"
    else:
        addresses = ", ".join(sorted(set(own_addresses().values())))
        found = f"none of them is this machine, which is {addresses}"
    raise ConfigError(
        f"the servers are {', '.join(servers)}; {found}: say which one this is "
        "with --server_id",
        topology.path,
    )


def is_own_address(server_id: str) -> bool:
    """Return whether an IP address or host name is that of this machine."""
    try:
        address = ipaddress.ip_address(server_id)
    except ValueError:
        return server_id == socket.gethostname()
    if address.is_unspecified:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((server_id, 0))  # The kernel lets us bind our own only.
    except OSError:
        return False
    return True


def own_addresses() -> Dict[str, str]:
    """Return the first IPv4 address of each network interface, by its name."""
    addresses = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                reply = fcntl.ioctl(control.fileno(), SIOCGIFADDR, request)
            except OSError:
                continue  # This interface has no IPv4 address.
            addresses[name] = socket.inet_ntoa(reply[20:24])
    return addresses


def interface_of(server_id: str) -> Optional[str]:
    """Return the network interface that has an address, None where unknown."""
    for name, address in own_addresses().items():
        if address == server_id or _are_loopback(address, server_id):
            return name
    return None


def _are_loopback(*addresses: str) -> bool:
    """All of 127.0.0.0/8 belongs to the interface that has 127.0.0.1."""
    return all(address.startswith("127.") for address in addresses)
