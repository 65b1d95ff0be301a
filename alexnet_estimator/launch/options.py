"""The options of the launcher."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the launcher; all times are in seconds.

    Attributes:
        max_restarts: Largest number of restarts in a row without a new checkpoint, see
            ``Restarts``.
        hang_timeout_secs: Largest time without a step; 0 for no limit.
        start_timeout_secs: Largest time until the first step of training or of an
            evaluation, while a rank loads and compiles; 0 for no limit.
        rendezvous_port: Port of Horovod's rendezvous; 0 for any free port.
        settle_secs: Time after a failure during which other ranks may report a cause.
        dump_secs: Time for ranks that hang to write their stacks.
        end_secs: Time between SIGTERM and SIGKILL.
        stop_secs: Time for ranks to save and stop on request.
        tail_lines: Number of lines of a failed rank's log that are shown.
    """

    max_restarts: int = 0
    hang_timeout_secs: float = 0.0
    start_timeout_secs: float = 0.0
    rendezvous_port: int = 0
    settle_secs: float = 2.0
    dump_secs: float = 1.0
    end_secs: float = 6.0
    stop_secs: float = 600.0
    tail_lines: int = 20
