"""What can be chosen about a group of ranks."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Options:
    """How patient the launcher is.

    Attributes:
        max_restarts: Restarts in a row that bring no new checkpoint; see ``Restarts``.
        hang_timeout_secs: Time without a step; 0: for ever.
        start_timeout_secs: The same while a rank loads, compiles and takes the first
            step of training or of an evaluation.
        rendezvous_port: Port at which Horovod's ranks meet; 0 chooses one.
        settle_secs: Time after a failure for others to fail with a better reason.
        dump_secs: Time for ranks that hang to write their stacks.
        end_secs: Time from SIGTERM to SIGKILL where ranks are ended.
        stop_secs: Time for ranks to save and stop after a request.
        tail_lines: Lines of a failed rank's log that are shown.
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
