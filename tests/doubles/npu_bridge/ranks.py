"""Collectives between the processes of a test, for which rank 0 runs a server.

As with HCCL, the other ranks are not told that a rank has died.  They wait until a
time-out.
"""

import atexit
import collections
import pickle
import socket
import threading
import time
from typing import Any, Dict, List, Tuple

import numpy as np

Key = Tuple[str, int]


class Group:
    """The ranks of one job on one machine."""

    def __init__(self, rank: int, num_ranks: int, address: str, timeout_secs: float):
        """Join; rank 0 starts to serve.

        Args:
            rank: Rank of this process.
            num_ranks: Number of ranks of the job.
            address: Name of a Unix socket in the abstract namespace.
            timeout_secs: Largest time in seconds for connecting and for a collective.
        """
        self._rank, self._num_ranks = rank, num_ranks
        self._address, self._timeout_secs = "\0" + address, timeout_secs
        self._counts: Dict[str, int] = collections.Counter()
        self._lock = threading.Lock()
        if rank == 0:
            _Server(self._address, num_ranks)

    def combine(self, name: str, how: str, value: np.ndarray) -> np.ndarray:
        """Return the result of a collective, which is the same on every rank.

        Args:
            name: Name of the operator in the graph, the same on all ranks.
            how: ``sum``, ``max``, ``min``, ``prod``, ``gather`` or a root rank.
            value: Value of this rank; dtype and shape are the same on all ranks.
        """
        with self._lock:
            self._counts[name] += 1
            key = (name, self._counts[name])
        deadline = time.monotonic() + self._timeout_secs
        with self._connect(deadline) as connection:
            stream = connection.makefile("rwb")
            pickle.dump((key, self._rank, how, value), stream, protocol=4)
            stream.flush()
            try:
                answer = pickle.load(stream)
            except (EOFError, OSError):
                time.sleep(max(0.0, deadline - time.monotonic()))
                raise RuntimeError(
                    f"EI0002: rank {self._rank} waited {self._timeout_secs:g} s for "
                    f"the other ranks at {name}"
                ) from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def _connect(self, deadline: float) -> socket.socket:
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                connection.connect(self._address)
                return connection
            except ConnectionRefusedError:
                connection.close()
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"EI0006: Getting socket times out: rank {self._rank} found no "
                        "rank 0"
                    ) from None
                time.sleep(0.05)


class _Server:
    """Collects the values of each collective, and answers when it has all of them."""

    def __init__(self, address: str, num_ranks: int):
        self._num_ranks = num_ranks
        self._rounds: Dict[Key, Dict[int, Tuple[str, np.ndarray]]] = {}
        self._answers: Dict[Key, Any] = {}
        self._num_unsent = 0
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(address)
        self._socket.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()
        # Rank 0 may have finished before its last answers have been sent.
        atexit.register(self._wait_until_sent)

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(
                target=self._serve, args=(connection,), daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            stream = connection.makefile("rwb")
            key, rank, how, value = pickle.load(stream)
            with self._changed:
                values = self._rounds.setdefault(key, {})
                values[rank] = (how, value)
                if len(values) == self._num_ranks:
                    self._answers[key] = _answer(key[0], self._rounds.pop(key))
                    self._num_unsent += self._num_ranks
                    self._changed.notify_all()
                self._changed.wait_for(lambda: key in self._answers)
                answer = self._answers[key]
            try:
                pickle.dump(answer, stream, protocol=4)
                stream.flush()
            except OSError:
                pass  # That rank has died; the launcher sees it.
            with self._changed:
                self._num_unsent -= 1
                self._changed.notify_all()

    def _wait_until_sent(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._num_unsent == 0, timeout=5)


def _answer(name: str, values: Dict[int, Tuple[str, np.ndarray]]) -> Any:
    ranked: List[Tuple[str, np.ndarray]] = [values[rank] for rank in sorted(values)]
    kinds = {(how, array.dtype, array.shape) for how, array in ranked}
    if len(kinds) > 1:
        return f"EI0005: ranks call {name} with different arguments: {sorted(kinds)}"
    how = ranked[0][0]
    arrays = [array for _, array in ranked]
    if how == "gather":
        return np.concatenate(arrays)
    if how.isdigit():
        return arrays[int(how)]
    reduce = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}[how]
    return np.asarray(reduce(arrays, axis=0), arrays[0].dtype)
