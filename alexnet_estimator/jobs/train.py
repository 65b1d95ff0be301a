"""The training job, which alternates between training and evaluation."""

import contextlib
import functools
import hashlib
import os
import pathlib
import time
from typing import Dict, List, Optional, Sequence, Tuple

import alexnet_estimator
from alexnet_estimator import checkpoints, disk, locks, run_record, warm_start
from alexnet_estimator.checkpoints import best, restore
from alexnet_estimator.config import Config, to_json
from alexnet_estimator.console import count, list_some, say, warn
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError, StopRequested
from alexnet_estimator.hooks.answers import Answer
from alexnet_estimator.hooks.heartbeat import Heartbeat
from alexnet_estimator.hooks.metrics_log import MetricsLog
from alexnet_estimator.hooks.progress import StepClock
from alexnet_estimator.hooks.saving import SaveHook
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.hooks.stopping import StopRequest
from alexnet_estimator.jobs import cards
from alexnet_estimator.jobs import evaluate as evaluation_job
from alexnet_estimator.jobs import pictures
from alexnet_estimator.jobs.evaluate import Evaluation, evaluate_sums
from alexnet_estimator.jobs.first_weights import (
    choose_first_weights,
    read_first_weights,
)
from alexnet_estimator.jobs.outcome import write_outcome
from alexnet_estimator.jobs.session import Run, check_fit, make_record
from alexnet_estimator.jobs.steps import group_hooks, run_steps, watching_hooks
from alexnet_estimator.model_fn import Training
from alexnet_estimator.networks import find_network
from alexnet_estimator.optim import schedules
from alexnet_estimator.records import manifest
from alexnet_estimator.records.kinds import SUFFIXES
from alexnet_estimator.run_record import RunRecord
from alexnet_estimator.warm_start import WarmStart

# The figures of an evaluation in metrics.jsonl and TensorBoard.
LOGGED = (
    "loss",
    "top_1_accuracy",
    "top_5_accuracy",
    "balanced_accuracy",
    "num_images",
)


def train(run: Run) -> Evaluation:
    """Train up to ``run.total_steps``, with evaluations in between and at the end.

    Training resumes from the newest valid checkpoint of ``run.model_dir``.  A finished
    run is only evaluated.

    Returns:
        The evaluation of the checkpoint that counts, see ``evaluate``: the last one, or
        with ``train.patience_epochs`` the most accurate one.

    Raises:
        ConfigError: The run cannot be trained, its folder contains pictures, or it
            does not fit the run in its folder.
        DataError: Data or checkpoints are damaged, no image is held out, or the disk is
            full or broken.
        DivergedError: The loss, gradients or weights are not finite.
        StopRequested: A rank was asked to stop; the last step has been saved.
    """
    evaluation_job.require_held_out(run)
    if run.runtime.is_chief:
        _refuse_pictures(run.model_dir)
    try:
        os.makedirs(run.model_dir, exist_ok=True)
    except OSError as error:
        raise disk.error_at(run.model_dir, "cannot be created", error) from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(disk.explaining_errors(run.model_dir))
        stack.enter_context(manifest.keep_unchanged(run.dataset))
        request = stack.enter_context(StopRequest().listening())
        stored: Optional[RunRecord] = None
        warm: Optional[WarmStart] = None
        if run.runtime.is_chief:
            stack.enter_context(locks.use_run(run.model_dir))
            stored = check_fit(run, is_training=True)
            warm = choose_first_weights(run)
        agree_on_run(run)
        log = MetricsLog(run.model_dir, run.runtime.is_chief)
        result = _Trainer(run, log, request, warm).train(stored)
    return result


def _refuse_pictures(model_dir: str) -> None:
    """Refuse a folder of pictures, which would no longer be a class of the data.

    A folder with a run record is left out when pictures are looked for.
    """
    if not os.path.isdir(model_dir) or os.path.exists(run_record.path_of(model_dir)):
        return
    names = [n for n in sorted(os.listdir(model_dir)) if n.lower().endswith(SUFFIXES)]
    if names:
        raise ConfigError(
            f"contains pictures ({list_some(names, 3)}): name another folder for the "
            "run",
            model_dir,
        )


def agree_on_run(run: Run) -> None:
    """Check that all ranks run the same code on the same data and configuration.

    Raises:
        RankError: The code, the data or the configuration differ.
    """
    config = Config(run.config.to_dict())
    # Servers may have the data in different folders, and only the first one has the
    # source of a warm start.
    config.data.path = config.warm_start.path = ""
    network = find_network(config.model.network)
    config.model.network = network.name
    digests = {
        "the configuration": hashlib.sha256(to_json(config).encode()).hexdigest(),
        "the data": hashlib.sha256(run.dataset.digest.encode()).hexdigest(),
        "the program's version": _code_digest(),
        **({"the file of the network": network.sha256} if network.sha256 else {}),
    }
    for what, digest in digests.items():
        # A float64 can hold these parts of 48 bits exactly.
        parts = [int(digest[start : start + 12], 16) for start in range(0, 60, 12)]
        run.runtime.agree_on(parts, what)


def _code_digest() -> str:
    """Return the SHA-256 (hex) of the source files of this package."""
    folder = pathlib.Path(alexnet_estimator.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()


class _Trainer:
    """Alternates between training and evaluation until the last step."""

    def __init__(
        self,
        run: Run,
        log: MetricsLog,
        request: StopRequest,
        warm: Optional[WarmStart],
    ):
        self._run, self._log, self._request, self._warm = run, log, request, warm
        # Only rank 0 knows the warm start, but all ranks must build the same graph.
        num_layers = len(warm.restored) if warm else 0
        self._num_warm_layers = int(run.runtime.of_chief(num_layers))
        self._start_secs = time.monotonic()
        self._heartbeat = Heartbeat(run.runtime.heartbeat)
        self._history: List[Tuple[float, float]] = []
        self._damages: Dict[str, str] = {}
        self._shown: Dict[int, List[Answer]] = {}  # By the evaluated step.

    def train(self, stored: Optional[RunRecord]) -> Evaluation:
        """Train from the agreed step to the end, and return what ``train`` returns.

        Args:
            stored: Record of the last start; None for a new run.
        """
        run = self._run
        restored = self._agree_on_step(is_checked=False)
        step = restored or 0
        self._history = _read_history(run, step)
        if self._warm and restored is None:
            warm_start.write_record(self._warm, run.model_dir)
        changes = self._update_record(stored, step) if run.runtime.is_chief else []
        self._note_start(restored, changes)
        result = None
        if self._lacks_evaluation(restored):
            result = self._evaluate(step)
        while step < run.total_steps and not self._is_over():
            self._train_until(step, _next_evaluation(run, step))
            step = self._agree_on_step(is_checked=True) or 0
            self._stop_if_agreed(step)
            result = self._evaluate(step)
        if result is None:
            result = self._evaluate(step)
        if run.runtime.is_chief and not os.path.isdir(run.model_dir):
            raise DataError("the run's folder was deleted: restore it", run.model_dir)
        if run.runtime.is_chief:
            result = evaluation_job.choose_result(run, result)
        best_step = int(run.runtime.of_chief(result["global_step"]))
        if best_step not in self._shown:  # An earlier process has evaluated it.
            result = self._count_answers(best_step, step)
        secs = time.monotonic() - self._start_secs
        self._log.write("end", step, seconds=round(secs, 1))
        self._log.end_hparams()
        report = None
        if run.runtime.is_chief:
            self._say("writing the report ...")
            shown = self._shown[best_step]
            report = write_outcome(run, result, shown, self._heartbeat)
        self._say(cards.end_card(run, result, secs, report), is_result=True)
        return result

    def _update_record(self, stored: Optional[RunRecord], step: int) -> List[str]:
        """Write the run record, and return the changes since the last start."""
        run, record = self._run, make_record(self._run)
        if stored is None or step < run.total_steps:
            run_record.write(run_record.path_of(run.model_dir), record)
        elif step > run.total_steps:
            # The record stays, because it describes how the run was trained.
            warn(
                f"the run has taken {step} steps, and this command asks for "
                f"{run.total_steps}: it is evaluated only"
            )
        if stored is None:
            return []
        batch = run.global_batch_size
        old_batch = stored.config.train.batch_size_per_rank * stored.num_ranks
        has_other_batch = old_batch not in (0, batch)
        if step and has_other_batch and not run.config.train.steps:
            warn(
                f"the global batch size was {old_batch} and is {batch}: "
                f"the {step} steps of the run count as "
                f"{step / run.steps_per_epoch:.4g} epochs of the new size; use "
                "--train_steps to give the total number of steps"
            )
        return run_record.find_changes(stored, record)

    def _note_start(self, restored: Optional[int], changes: Sequence[str]) -> None:
        """Show the start card, and write the start to the log."""
        run, step = self._run, restored or 0
        card = cards.start_card(run, restored, changes, self._warm)
        self._say(card)
        self._log.write(
            "start",
            step,
            num_ranks=run.runtime.num_ranks,
            num_bad_records=run.dataset.num_bad_records,
            changes=list(changes),
        )
        self._log_damages(step)
        if run.runtime.is_chief:
            self._log.write_text("run", step, card)
            self._log.write_text("configuration", step, to_json(run.config))
            self._log.write_hparams(cards.compared_settings(run))

    def _agree_on_step(self, is_checked: bool) -> Optional[int]:
        """Return the step of rank 0's newest checkpoint on all ranks; None without one.

        Args:
            is_checked: Whether this process has just saved and verified the checkpoint.
        """
        step, model_dir = 0, self._run.model_dir
        if self._run.runtime.is_chief:
            newest = (
                checkpoints.latest(model_dir)
                if is_checked
                else restore.newest_valid(model_dir, self._note_damage)
            )
            step = -1 if newest is None else checkpoints.step_of(newest) or 0
        agreed = int(self._run.runtime.of_chief(step))
        return None if agreed < 0 else agreed

    def _note_damage(self, checkpoint: str, problem: str) -> None:
        restore.warn_of_damage(checkpoint, problem)
        self._damages[checkpoint] = problem

    def _log_damages(self, step: int) -> None:
        """Write the damaged checkpoints, which were skipped, to the log."""
        for checkpoint, problem in self._damages.items():
            self._log.write("quarantine", step, checkpoint=checkpoint, problem=problem)
        self._damages.clear()

    def _lacks_evaluation(self, restored: Optional[int]) -> bool:
        """Return whether the job was killed between a checkpoint and its evaluation."""
        is_due = restored and _next_evaluation(self._run, restored - 1) == restored
        return bool(is_due) and not self._run.runtime.of_chief(
            os.path.exists(
                evaluation_job.path_of_evaluation(self._run.model_dir, restored or 0)
            )
        )

    def _is_over(self) -> bool:
        """Return whether to end early; rank 0 decides, as it has the evaluations."""
        settings, history = self._run.config.train, self._history or [(0.0, 0.0)]
        epoch, accuracy = history[-1]
        best_epoch, _ = max(history, key=lambda evaluated: evaluated[1])
        is_good = 0 < settings.target_accuracy <= accuracy
        is_stuck = 0 < settings.patience_epochs <= epoch - best_epoch
        return self._run.runtime.of_chief(is_good or is_stuck) > 0

    def _train_until(self, step: int, target: int) -> None:
        """Train from ``step`` to ``target``, or until a stop is agreed on."""
        run, warm = self._run, self._warm
        # All ranks use rank 0's factor: other servers may not see its evaluations.
        factor = schedules.plateau_factor(self._history, run.config.optim)
        training = Training(
            plan=run.learning_rate_plan,
            plateau_factor=run.runtime.of_chief(factor),
            make_hooks=self._make_hooks,
            checkpoint=checkpoints.path_of(run.model_dir, step),
            num_warm_layers=self._num_warm_layers,
            read_weights=functools.partial(read_first_weights, run, warm)
            if warm
            else None,
            class_weights=run.class_weights,
        )
        # A skipped step uses a batch, too, but does not count as a global step.
        num_skipped = restore.count_skipped(training.checkpoint)
        first_batch = step + int(run.runtime.of_chief(num_skipped))
        run_steps(run, training, first_batch, target)

    def _make_hooks(self, tensors: StepTensors) -> List[tf.train.SessionRunHook]:
        """Return the hooks of a training session."""
        run, clock, is_chief = self._run, StepClock(), self._run.runtime.is_chief
        # The guard must come before the saver.  In the other order, the weights of a
        # diverged run would be saved before the guard ends it.
        self._log.write_graph(tensors.step.graph)
        return [
            *watching_hooks(run, tensors, self._log, clock, is_chief),
            SaveHook(run.model_dir, run.config.train, clock, is_chief),
            *self._group_hooks("train"),
        ]

    def _group_hooks(self, phase: str) -> List[tf.train.SessionRunHook]:
        return group_hooks(self._run, self._heartbeat, self._request, phase)

    def _stop_if_agreed(self, step: int) -> None:
        if self._request.is_agreed:
            self._log.write("stop", step)
            raise StopRequested(
                f"stopped on request at step {step} of {self._run.total_steps}; run "
                "the same command again to resume"
            )

    def _evaluate(self, step: int) -> Evaluation:
        """Evaluate the checkpoint of ``step``; log, show and store the result."""
        run, start_secs = self._run, time.monotonic()
        result = self._count_answers(step, step)
        accuracy = result["top_1_accuracy"]
        self._history.append((step / run.steps_per_epoch, accuracy))
        secs = round(time.monotonic() - start_secs, 2)
        values = {name: result[name] for name in LOGGED}
        self._log.write("evaluation", step, seconds=secs, **values)
        if run.runtime.is_chief:
            best.note_best(run.model_dir, step, accuracy)
            evaluation_job.write_evaluation(run.model_dir, result)
            checkpoint = checkpoints.path_of(run.model_dir, step)
            drawn = pictures.draw_evaluation(run, checkpoint, result, self._shown[step])
            for name, drawing in drawn.items():
                self._log.write_image(name, step, drawing)
        self._say(
            f"step {step}/{run.total_steps}  "
            f"evaluated {count(result['num_images'], 'image')}: "
            f"accuracy {accuracy:.4f}  loss {result['loss']:.4f}"
        )
        return result

    def _count_answers(self, step: int, reached: int) -> Evaluation:
        """Evaluate the checkpoint of ``step``, and keep the answers that are shown.

        Args:
            step: Global step of the checkpoint.
            reached: Global step of the training, at which a stop is reported.
        """
        run = self._run
        checkpoint = checkpoints.path_of(run.model_dir, step)
        num_images = run.dataset.splits["validation"].num_images
        self._say(f"evaluating {count(num_images, 'image')} ...")
        sums = evaluate_sums(run, checkpoint, self._group_hooks("evaluate"))
        self._stop_if_agreed(reached)
        self._shown[step] = sums["shown"]
        return evaluation_job.summarise(sums, run)

    def _say(self, text: str, is_result: bool = False) -> None:
        if self._run.runtime.is_chief:
            say(text, is_result)


def _next_evaluation(run: Run, step: int) -> int:
    """Return the global step at which to stop and evaluate."""
    every = run.eval_every_steps
    return min(run.total_steps, (step // every + 1) * every)


def _read_history(run: Run, last_step: int) -> List[Tuple[float, float]]:
    """Return the epoch and accuracy of each evaluation up to a step."""
    return [
        (result["global_step"] / run.steps_per_epoch, result["top_1_accuracy"])
        for result in evaluation_job.read_evaluations(run.model_dir)
        if result["global_step"] <= last_step
    ]
