"""Run alone: ``python -m pytest tests/test_guard.py``."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# RFC 5737 and RFC 2606: an address and a name that will never be anyone's.
ADDRESS, NAME = "192.0.2.1", "someone.invalid"


def connect():
    with socket.socket() as end:
        end.settimeout(1)
        end.connect((ADDRESS, 80))


def connect_without_raising():
    with socket.socket() as end:
        end.settimeout(1)
        end.connect_ex((ADDRESS, 80))


def send_a_datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"?", (ADDRESS, 53))


def connect_over_ipv6():
    with socket.socket(socket.AF_INET6) as end:
        end.settimeout(1)
        end.connect(("2001:db8::1", 80))


def connect_asynchronously():
    asyncio.run(asyncio.open_connection(NAME, 80))


WAYS = {
    "connect": connect,
    "connect_ex": connect_without_raising,
    "datagram": send_a_datagram,
    "IPv6": connect_over_ipv6,
    "asyncio": connect_asynchronously,
    "getaddrinfo": lambda: socket.getaddrinfo(NAME, 80),
    "gethostbyname": lambda: socket.gethostbyname(NAME),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex(NAME),
    "gethostbyaddr": lambda: socket.gethostbyaddr(ADDRESS),
    "getnameinfo": lambda: socket.getnameinfo((ADDRESS, 80), 0),
    "create_connection": lambda: socket.create_connection((NAME, 80), 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_attempt_is_refused_and_written_down(way, attempts):
    with pytest.raises(OSError, match="tests use no network"):
        WAYS[way]()
    (line,) = attempts()
    assert ADDRESS in line or NAME in line or "2001:db8::1" in line


def test_this_machine_may_be_reached(attempts):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            with socket.create_connection((host, port), 5) as end:
                end.sendall(b"x")
            server.accept()[0].close()
    assert attempts() == []


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
def test_unix_sockets_stay_open(attempts, tmp_path):
    # Kept short: such a path may have about a hundred characters.
    path = os.path.relpath(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as end:
        server.bind(path)
        server.listen()
        end.connect(path)
    assert attempts() == []


SWALLOWED = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except OSError:
    print("swallowed")
"""


def test_a_child_process_is_guarded_too(attempts):
    child = subprocess.run(
        [sys.executable, "-c", SWALLOWED], capture_output=True, text=True, check=True
    )
    assert child.stdout == "swallowed\n"
    (line,) = attempts()
    assert "192.0.2.1" in line


def test_an_open_environment_has_no_guard(open_environment):
    code = "import sys; print(hasattr(sys, '_ftlib_network_guard'))"
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=open_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == "False\n"


INNER = """
import socket, subprocess, sys, threading
import pytest

def swallow(host="192.0.2.1"):
    try:
        socket.create_connection((host, 80), 1)
    except OSError:
        pass

@pytest.fixture
def careless():
    swallow()

@pytest.fixture
def careless_at_the_end():
    yield
    swallow()

def test_quiet():
    swallow("127.0.0.1")

def test_swallowed():
    swallow()

def test_in_a_thread():
    thread = threading.Thread(target=swallow)
    thread.start()
    thread.join()

def test_in_a_child():
    code = "import socket\\ntry: socket.gethostbyname('someone.invalid')\\nexcept: pass"
    subprocess.run([sys.executable, "-c", code], check=True)

def test_in_a_fixture(careless):
    pass

def test_in_a_fixtures_end(careless_at_the_end):
    pass

def test_quiet_again():
    pass
"""


def run_inner(folder, source):
    path = folder / "test_inner.py"
    path.write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull]
    return subprocess.run(
        [*command, "--rootdir", str(folder), "-rA", "--color=no", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_test_that_swallows_the_refusal_fails_all_the_same(tmp_path):
    done = run_inner(tmp_path, INNER)
    found = {
        line.split("::")[1].split(" ")[0]: line.split(" ")[0]
        for line in done.stdout.splitlines()
        if line.startswith(("FAILED", "ERROR", "PASSED")) and "::" in line
    }
    assert done.returncode == 1
    assert found == {
        "test_quiet": "PASSED",
        "test_swallowed": "FAILED",
        "test_in_a_thread": "FAILED",
        "test_in_a_child": "FAILED",
        "test_in_a_fixture": "ERROR",
        "test_in_a_fixtures_end": "ERROR",
        "test_quiet_again": "PASSED",
    }


def test_an_attempt_while_a_test_module_is_imported_ends_the_session(tmp_path):
    done = run_inner(tmp_path, INNER + "\nswallow()\n")
    assert done.returncode == 1
    assert "when imported, tried to reach the network" in done.stdout + done.stderr
