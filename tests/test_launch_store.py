"""The store for the rendezvous of the ranks serves them, and nobody else."""

import http.client
import socket
from typing import Iterator, Tuple

import pytest

from alexnet_estimator.launch import store as store_lib
from alexnet_estimator.launch.store import Store

HOST = "127.0.0.1"


@pytest.fixture(params=[True, False], ids=["secret", "open"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    made = Store(HOST, 0, is_secret=request.param)
    with made.serving():
        yield made


def send(store: Store, method: str, path: str, body: bytes = b"") -> Tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, store.port, timeout=10)
    connection.request(method, path, body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def ask(store: Store, method: str, name: str, body: bytes = b"") -> Tuple[int, bytes]:
    """Send a request as Gloo builds it: ``ADDRESS:PORT/SCOPE/KEY``."""
    after_host = store.address_for_gloo("") + f":{store.port}/{name}"
    return send(store, method, after_host[after_host.index("/") :], body)


def test_values_are_kept_until_all_have_them(store: Store) -> None:
    for rank in ("rank_0", "rank_1"):
        assert ask(store, "GET", f"global/{rank}") == (404, b"")
        assert ask(store, "PUT", f"global/{rank}", rank.encode()) == (200, b"")
    assert ask(store, "PUT", "cross_0/rank_0", b"x") == (200, b"")
    assert store.keys_of("global") == {"rank_0", "rank_1"}
    assert ask(store, "DELETE", "global/rank_0") == (200, b"")
    assert ask(store, "GET", "global/rank_0") == (
        200,
        b"rank_0",
    )  # Rank 1 still needs this value.
    assert ask(store, "DELETE", "global/rank_1") == (200, b"")
    assert store.keys_of("global") == set()
    assert store.keys_of("cross_0") == {"rank_0"}


def test_what_no_rank_sends_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store_lib, "MAX_VALUE_BYTES", 1000)
    assert ask(store, "PUT", "global/a", b"x" * 1000)[0] == 200
    assert ask(store, "PUT", "global/b", b"x" * 1001)[0] == 413
    monkeypatch.setattr(store_lib, "MAX_KEYS", 1)
    assert ask(store, "PUT", "global/b", b"x")[0] == 413
    assert store.keys_of("global") == {"a"}
    for path in ("/", "/global", "/x/global/a"):
        for method in ("GET", "PUT", "DELETE"):
            assert send(store, method, path)[0] == 400
    for text in (
        b"\n",
        b"nonsense\r\n\r\n",
        b"PUT /a/b HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PUT /a/b HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ):
        with socket.create_connection((HOST, store.port), timeout=10) as connection:
            connection.sendall(text)
    assert ask(store, "GET", "global/a")[0] == 200  # The store still answers.
    assert capfd.readouterr() == ("", "")


def test_a_stranger_does_not_know_the_path() -> None:
    with_secret = Store(HOST, 0, is_secret=True)
    with with_secret.serving():
        ask(with_secret, "PUT", "global/rank_0", b"address")
        for method in ("GET", "PUT", "DELETE"):
            assert send(with_secret, method, "/global/rank_0", b"mine") == (400, b"")
        assert ask(with_secret, "GET", "global/rank_0") == (200, b"address")
