"""
Let no test reach the network, and write down each one that tried.

Python reports connections and look-ups of names to audit hooks, from whichever library
they come; what another language does on its own, without Python's sockets, is not
seen. An attempt is refused and also written to a file, so that it counts even where
the caller swallows the error.
"""

import json
import os
import sys
from pathlib import Path

LOG = "FTLIB_NETWORK_LOG"
"""The environment variable that names the file of attempts."""


class NetworkBlockedError(OSError):
    """A test tried to reach beyond this machine."""


def install():
    """Watch this process from now on; an audit hook cannot be taken off again."""
    if not hasattr(sys, "_ftlib_network_guard"):
        sys._ftlib_network_guard = True
        sys.addaudithook(_watch)


def _watch(event, arguments):
    if not event.startswith("socket."):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        target = _find_target(*arguments[:2])
    elif (
        event in ("socket.getaddrinfo", "socket.gethostbyname")
        or event == "socket.gethostbyaddr"
    ):
        target = arguments[0]
    elif event == "socket.getnameinfo":
        target = arguments[0][0]
    else:
        return
    if not is_local(target):
        attempt = {"event": event, "target": str(target), "program": sys.argv[:2]}
        with Path(os.environ[LOG]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(attempt) + "\n")
        raise NetworkBlockedError(f"{event} to {target}: tests use no network")


def _find_target(socket, address):
    """Give the host that a socket would reach, None where it cannot leave here."""
    if socket.family.name == "AF_UNIX" or address is None:
        return None
    return address[0]


def is_local(host):
    """Say whether a host's name or address is this very machine's."""
    if host in (None, "", b""):
        return True
    name = host.decode() if isinstance(host, (bytes, bytearray)) else str(host)
    from socket import gethostname

    if name in ("localhost", gethostname()):  # torchrun asks for its own name
        return True
    from ipaddress import ip_address

    try:
        address = ip_address(name.split("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
