"""The number of training steps in one call of ``session.run``."""

from typing import List, NamedTuple

from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError

# An Ascend 910 trains AlexNet at about 4,000 images/s (docs/ascend.md), so that a loop
# over these images takes about one second.  Hooks only act between loops.
IMAGES_PER_LOOP = 4000
EXACT = ("steps", "save_every_steps")
MAX_ROUNDING = 0.05  # Largest relative change of an interval that is given in epochs.


class Loop(NamedTuple):
    """A loop of training steps on a device.

    Attributes:
        num_steps: Number of training steps in one call.
        reason: Reason for this number, for the start card.
        calls_between_agreements: Number of calls after which the ranks ask each other
            whether to stop.
    """

    num_steps: int
    reason: str = ""
    calls_between_agreements: int = 1


def choose_loop(config: Config, steps_per_epoch: int) -> Loop:
    """Return the loop of ``npu.iterations_per_loop``, or choose one if that is 0.

    The chosen loop is the longest one up to about a second such that all intervals are
    multiples of it.  Intervals in epochs may be changed by 5 %, and progress may be
    shown after every loop instead of more often.

    Args:
        config: Valid configuration.
        steps_per_epoch: Number of global steps in an epoch.

    Raises:
        ConfigError: An interval is not a multiple of the configured loop.
    """
    train, num_steps = config.train, config.npu.iterations_per_loop
    target = max(1, IMAGES_PER_LOOP // train.batch_size_per_rank)
    if num_steps > 0:
        problems = [
            f"train.{name} is {train[name]}: must be a multiple of "
            f"npu.iterations_per_loop = {num_steps} (0 chooses it), because hooks only "
            "act between loops"
            for name in _misfits(config, num_steps)
        ]
        if problems:
            raise ConfigError(problems, "configuration")
        return Loop(num_steps, "as configured", -(-target // num_steps))
    epochs = {"train.epochs": train.epochs * (train.steps == 0)}
    epochs["train.eval_every_epochs"] = train.eval_every_epochs
    intervals = [value * steps_per_epoch for value in epochs.values() if value]
    num_steps = next(
        loop
        for loop in range(target, 0, -1)
        if not _misfits(config, loop)
        and all(_is_near(loop, steps) for steps in intervals)
    )
    reason = "chosen: about one second on an Ascend 910"
    if num_steps == 1:
        names = [
            f"train.{name} = {train[name]}" for name in (*EXACT, "log_every_steps")
        ]
        names += [f"{name} = {value:g}" for name, value in epochs.items() if value]
        reason = f"chosen: a longer loop does not fit {', '.join(names)}"
    return Loop(num_steps, reason, -(-target // num_steps))


def _misfits(config: Config, loop: int) -> List[str]:
    """Return the names of the intervals that are not a multiple of the loop."""
    train, log_every = config.train, config.train.log_every_steps
    names = [name for name in EXACT if train[name] % loop]
    if log_every % loop and loop % log_every:
        names.append("log_every_steps")
    return names


def _is_near(loop: int, steps: float) -> bool:
    """Return whether a number of whole loops is close to a number of steps."""
    return abs(max(1, round(steps / loop)) * loop - steps) <= MAX_ROUNDING * steps
