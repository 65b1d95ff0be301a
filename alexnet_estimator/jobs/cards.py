"""The cards that are printed at the start and at the end of a training."""

from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from alexnet_estimator import checkpoints
from alexnet_estimator.config import Config
from alexnet_estimator.console import count
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.hooks.progress import format_secs
from alexnet_estimator.inputs import slices_of_rank
from alexnet_estimator.jobs.evaluate import Evaluation, majority_share
from alexnet_estimator.jobs.session import Run
from alexnet_estimator.networks import find_network
from alexnet_estimator.networks.graphs import count_parameters
from alexnet_estimator.optim.loss_scale import resolve_loss_scale
from alexnet_estimator.optim.schedules import learning_rate
from alexnet_estimator.schema import PRECISION_ALIASES
from alexnet_estimator.warm_start import WarmStart

# A warning is shown if a class has more than this many times the pictures of another.
MOST_UNEVEN = 4


def start_card(
    run: Run,
    restored_step: Optional[int],
    changes: Sequence[str] = (),
    warm: Optional[WarmStart] = None,
) -> str:
    """Return the card that describes a training before its start.

    Args:
        run: Opened run.
        restored_step: Global step of the restored checkpoint; None for a new run.
        changes: Changes of the configuration since the last start.
        warm: Description of the warm start, if there is one.
    """
    config, plan = run.config, run.learning_rate_plan
    network = find_network(config.model.network)
    num_parameters = count_parameters(
        run.dataset.num_classes, config.data.image_size, config.model
    )
    batch = config.train.batch_size_per_rank
    rates = [float(learning_rate(float(s), plan)) for s in (0, plan.total_steps - 1)]
    peak = f"initial {rates[0]:g}, peak {plan.peak:g}, final {rates[1]:g}"
    new = warm.source if warm else "new weights"
    start = new if restored_step is None else f"step {restored_step}"
    finished = restored_step is not None and restored_step >= run.total_steps
    rows = [
        ("device", f"{run.runtime.device}, TensorFlow {tf.__version__}"),
        ("ranks", f"{run.runtime.num_ranks}"),
        ("batch size", f"{batch} per rank, {run.global_batch_size} in total"),
        ("precision", describe_precision(config)),
        ("model", f"{network.title}, {num_parameters:,} parameters"),
        ("data", describe_data(run)),
        *(("left out", line) for line in run.dataset.left_out),
        *_uneven_rows(run),
        *shards_rows(run),
        ("steps", f"{run.total_steps}, {run.steps_per_epoch} per epoch"),
        *loop_rows(run),
        ("learning rate", f"{config.optim.schedule}: {peak}"),
        ("starts from", start + (", already finished" if finished else "")),
        *(warm_start_rows(run, warm, restored_step is None) if warm else ()),
        *(("changed", change) for change in changes),
        ("model_dir", run.model_dir),
    ]
    return format_card(network.title, rows)


def compared_settings(run: Run) -> Dict[str, Union[str, int, float]]:
    """Return the settings by which TensorBoard compares runs of any network."""
    config = run.config
    network = find_network(config.model.network)
    changed = [
        f"{name}={config.model[name]}"
        for name, field in network.settings.items()
        if config.model[name] != field.default
    ]
    optim = ("learning_rate", "optimizer", "schedule", "momentum", "weight_decay")
    # TensorBoard shows the first five until its user chooses others.
    return {
        "network": network.name,
        "network settings": ", ".join(changed) or "default",
        "batch size": run.global_batch_size,
        **{name.replace("_", " "): config.optim[name] for name in optim},
        "steps": run.total_steps,
        "image size": config.data.image_size,
        "precision": config.precision.mode,
        "seed": config.train.seed,
    }


def warm_start_rows(run: Run, warm: WarmStart, is_new: bool) -> List[Tuple[str, str]]:
    """Return the rows about restored, frozen and new layers.

    Args:
        run: Opened run.
        warm: Description of the warm start.
        is_new: Whether the run has no checkpoint yet; otherwise the rows are fewer.
    """
    settings, layers = run.config.warm_start, warm.restored
    factor, frozen_until = settings.learning_rate_factor, settings.frozen_until
    rate = f", learning rate x {factor:g}" if factor != 1 else ""
    rows = [("restored", " ".join(layers) + rate)]
    if frozen_until:
        frozen = layers[: layers.index(frozen_until) + 1]
        rows.append(("frozen", " ".join(frozen)))
    if not is_new:
        return [*rows, ("warm start", warm.source)]
    rows += [("new", f"{layer}: {reason}") for layer, reason in warm.new.items()]
    rows += [("left out", ", ".join(warm.left_out))] if warm.left_out else []
    return rows + [("note", note) for note in warm.notes]


def end_card(
    run: Run, result: Evaluation, secs: float, report: Optional[str] = None
) -> str:
    """Return the card that describes the result of a training.

    Args:
        run: Finished run.
        result: Evaluation of the checkpoint that counts.
        secs: Wall time since this start in seconds.
        report: Path of the report; None if it could not be written.
    """
    accuracy, step = result["top_1_accuracy"], result["global_step"]
    newest = checkpoints.latest(run.model_dir)
    last_step = checkpoints.step_of(newest) if newest else step
    is_best = step != last_step  # The run was ended by train.patience_epochs.
    chance = majority_share(run)
    rows = [
        ("steps", f"{last_step}" + (f"; step {step} was the best" if is_best else "")),
        (
            "accuracy",
            f"{accuracy:.4f} on {count(result['num_images'], 'unseen image')}",
        ),
        ("majority class", f"{chance:.4f} is the accuracy of always predicting it"),
        ("time", format_secs(secs)),
        ("checkpoint", str(checkpoints.path_of(run.model_dir, step))),
        ("evaluation", f"{run.model_dir}/eval/{step}.json"),
        *((("report", report),) if report else ()),
        ("TensorBoard", f"tensorboard --logdir={run.model_dir}"),
    ]
    return format_card("done", rows)


def describe_data(run: Run) -> str:
    """Return the folder of the data and its numbers of classes and images."""
    splits, num_bad = run.dataset.splits, run.dataset.num_bad_records
    return (
        f"{run.dataset.directory}: {run.dataset.num_classes} classes, "
        f"{count(splits['train'].num_images, 'image')} for training, "
        f"{splits['validation'].num_images} for evaluation"
        + (f", without {count(num_bad, 'damaged record')}" if num_bad else "")
    )


def _uneven_rows(run: Run) -> List[Tuple[str, str]]:
    """Warn of classes that have many more pictures than others."""
    counts = run.dataset.splits["train"].class_counts
    if max(counts) <= MOST_UNEVEN * max(1, min(counts)):
        return []
    names, weights = run.dataset.class_names, run.config.optim.class_weights
    largest, smallest = counts.index(max(counts)), counts.index(min(counts))
    advice = "consider --config.optim.class_weights=balanced, and "
    return [
        (
            "uneven",
            f"{names[largest]} has {max(counts)} images, {names[smallest]} "
            f"{min(counts)}: {advice if weights == 'none' else ''}look at the balanced "
            "accuracy",
        )
    ]


def loop_rows(run: Run) -> List[Tuple[str, str]]:
    """Return a row about the loop on the device, if the device can loop."""
    if not run.runtime.can_loop:
        return []
    steps = count(run.loop.num_steps, "step")
    return [("loop", f"{steps} per call of the device, {run.loop.reason}")]


def shards_rows(run: Run) -> List[Tuple[str, str]]:
    """Return a row about the shard of each rank, if there are several."""
    if run.runtime.num_ranks == 1 or run.config.data.synthetic:
        return []
    shards = [(s.file, s.num_images) for s in run.dataset.splits["train"].shards]
    rows = []
    for rank in range(run.runtime.num_ranks):
        slices = slices_of_rank(shards, rank, run.runtime.num_ranks)
        images = sum(part.take for part in slices)
        files = f"{len(slices)} of {count(len(shards), 'file')}"
        rows.append((f"rank {rank} reads", f"{files}, {count(images, 'image')}"))
    return rows


def format_card(title: str, rows: List[Tuple[str, Any]]) -> str:
    """Return rows as two columns under a title."""
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([f"-- {title} ".ljust(60, "-"), *lines, "-" * 60])


def describe_precision(config: Config) -> str:
    """Return the precision mode, by its alias if it has one, and the loss scale."""
    mode = config.precision.mode
    plain = {name: alias for alias, name in PRECISION_ALIASES.items()}
    words = f"{plain[mode]} ({mode})" if plain.get(mode) == "mixed" else plain.get(mode)
    return f"{words or mode}, loss scale {resolve_loss_scale(config.precision)}"
