"""Names of hosts and sessions: `host:port`, `[v6]:port`; and who can be reached there."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from typing import NamedTuple


class UnresolvedError(OSError):
    """A name that stands for no address."""


class Endpoint(NamedTuple):
    """A numeric address and a port."""

    ip: str
    port: int

    def __str__(self) -> str:
        return join(self.ip, self.port)


def join(host: str, port: int) -> str:
    """The session that callers name: `host:port`."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def split(name: str) -> tuple[str, int | None]:
    """Host and port of a name; no port where there is none, or none that makes sense."""
    host, _, port = name.rpartition(":")
    if name.startswith("["):
        inner, closed, rest = name[1:].partition("]")
        if not closed:
            return name, None
        host, port = inner, rest[1:] if rest.startswith(":") else ""
    elif name.count(":") != 1:
        # Without a port, be it IPv6 or not.
        host, port = name, ""
    # Python refuses to read numbers of thousands of digits.
    valid = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    return host, int(port) if valid else None


def resolve(host: str, port: int, ipv6: bool = False) -> list[Endpoint]:
    """The addresses of a host, IPv4 first unless `ipv6`.

    Raises:
        UnresolvedError: it has none.
    """
    if not host:
        raise UnresolvedError("an empty name is no host")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise UnresolvedError(f"{host}: {error}") from None
    wanted = socket.AF_INET6 if ipv6 else socket.AF_INET
    found.sort(key=lambda entry: entry[0] != wanted)
    return list(dict.fromkeys(Endpoint(str(entry[4][0]), port) for entry in found))


def knock(endpoints: list[Endpoint], seconds: float) -> Endpoint:
    """The first of them at which somebody listens.

    kvx itself dials on until its deadline, for a peer that is about to start; callers of Mooncake
    count on hearing at once that nobody is there.

    Raises:
        OSError: nobody does, or none answered in time.
    """
    failure: OSError = UnresolvedError("no address")
    for endpoint in endpoints:
        try:
            socket.create_connection(endpoint, timeout=seconds).close()
        except OSError as error:
            failure = error
        else:
            return endpoint
    raise failure


def is_free(endpoint: Endpoint) -> bool:
    """Whether nobody listens there yet, as far as one can know.

    Raises:
        OSError: the address is none of this host's.
    """
    family = socket.AF_INET6 if ":" in endpoint.ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(endpoint)
            probe.listen()
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
    return True


def is_own(ip: str) -> bool:
    """Whether this host has the address."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True


def is_unspecified(ip: str) -> bool:
    """Whether it stands for every address of this host."""
    return ip in ("0.0.0.0", "::")


def engine_name(endpoint: Endpoint) -> str | None:
    """The lasting name of an engine that listens there: nobody else can have it meanwhile.

    An engine that is started again at the same place is thereby known to be another life of it, and
    what was under way with the last one fails at once. `None` where the network namespace cannot be
    told from others.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        namespace = os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return None
    where = hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:12]
    return f"mooncake-{endpoint}-{where}"


_TAKEN = (errno.EADDRINUSE, errno.EACCES)
