"""How many training steps an accelerator makes in one call of ``session.run``."""

from typing import List, NamedTuple

from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError

# An Ascend 910 trains AlexNet at some 4,000 images/s (docs/ascend.md), so this many
# steps take about a second: hooks, which act between calls, still follow closely.
IMAGES_PER_LOOP = 4000
EXACT = ("steps", "save_every_steps")
MAX_ROUNDING = 0.05  # Of an interval that is a number of epochs.


class Loop(NamedTuple):
    """A number of steps, and what people should know about it.

    Attributes:
        num_steps: Training steps in one call.
        reason: Reason for this number, for the start card.
        calls_between_agreements: Calls after which ranks ask each other whether to
            stop.
    """

    num_steps: int
    reason: str = ""
    calls_between_agreements: int = 1


def choose_loop(config: Config, steps_per_epoch: int) -> Loop:
    """Return the loop of ``npu.iterations_per_loop``, which 0 leaves to this function.

    The largest loop of about a second is chosen of which all intervals are multiples.
    Those that are given in epochs may move by a twentieth; progress may be shown after
    every loop instead of more often.

    Args:
        config: Valid configuration.
        steps_per_epoch: Global steps in an epoch.

    Raises:
        ConfigError: An interval ends within a loop that the user has chosen.
    """
    train, num_steps = config.train, config.npu.iterations_per_loop
    target = max(1, IMAGES_PER_LOOP // train.batch_size_per_rank)
    if num_steps > 0:
        _check(config, num_steps)
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
    reason = "chosen: about a second on an Ascend 910"
    if num_steps == 1:
        names = [
            f"train.{name} = {train[name]}" for name in (*EXACT, "log_every_steps")
        ]
        names += [f"{name} = {value:g}" for name, value in epochs.items() if value]
        reason = f"chosen: no larger loop fits {', '.join(names)}"
    return Loop(num_steps, reason, -(-target // num_steps))


def _misfits(config: Config, loop: int) -> List[str]:
    """Return the intervals that end within a loop."""
    train, log_every = config.train, config.train.log_every_steps
    names = [name for name in EXACT if train[name] % loop]
    if log_every % loop and loop % log_every:
        names.append("log_every_steps")
    return names


def _is_near(loop: int, steps: float) -> bool:
    """Return whether whole loops come close to a number of steps."""
    return abs(max(1, round(steps / loop)) * loop - steps) <= MAX_ROUNDING * steps


def _check(config: Config, loop: int) -> None:
    """Refuse intervals that end within a loop of the device, where no hook is called.

    Raises:
        ConfigError: All of them.
    """
    problems = [
        f"train.{name} is {config.train[name]}: must be a multiple of "
        f"npu.iterations_per_loop = {loop}, since hooks are called between loops only"
        for name in _misfits(config, loop)
    ]
    if problems:
        raise ConfigError(problems, "configuration")
