"""The export job: a run's model for serving, compared with its checkpoint first."""

import contextlib
import os
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Sequence

from alexnet_estimator import checkpoints, disk, files, run_record
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.jobs.evaluate import find_checkpoint, read_evaluations
from alexnet_estimator.jobs.export import graphs
from alexnet_estimator.jobs.export.card import describe_model
from alexnet_estimator.jobs.export.trial import (
    Trial,
    compare,
    prepare_trial,
    run_in_batches,
)
from alexnet_estimator.jobs.predict.classifier import (
    IMAGES,
    PROBABILITIES,
    SAVED_MODEL,
    find_record,
)
from alexnet_estimator.networks import find_network

CARD_FILE = "README.md"
FROZEN_FILE = "model.pb"
ONNX_FILE = "model.onnx"
ATC_FILE = "to_om.sh"
_ATC = """\
#!/bin/sh
# Compiles model.pb to model.om for inference on an Ascend chip, with CANN's atc.
# The argument is "Ascend" and the chip's name as `npu-smi info` shows it, such as
# Ascend310, Ascend310P3 or Ascend910A.  Input: float32, RGB from 0 to 255.
cd "$(dirname "$0")" || exit
exec atc --framework=3 --model=model.pb --output=model --input_format=NHWC \\
    --input_shape="{images}:{batch_size},{size},{size},3" \\
    --out_nodes="{probabilities}:0" --output_type=FP32 \\
    --soc_version="${{1:-Ascend310}}"
"""


class Export(NamedTuple):
    """What was exported.

    Attributes:
        folder: Folder of the exported model.
        global_step: Step of the checkpoint; None: its name does not tell.
        num_pictures: Number of pictures on which every format was compared with it.
        max_difference: Largest difference of a probability.
    """

    folder: str
    global_step: Optional[int]
    num_pictures: int
    max_difference: float


def export(
    config: Config,
    model_dir: str,
    output: str,
    formats: Sequence[str] = ("saved_model", "frozen"),
    batch_size: Optional[int] = None,
    checkpoint: Optional[str] = None,
) -> Export:
    """Export a checkpoint into a new folder, which appears when all is proved.

    Every format is loaded again and has to give the probabilities that the checkpoint
    gives, on up to ``trial.MAX_PICTURES`` pictures that the run was evaluated with.

    Args:
        config: Configuration of the run.
        model_dir: Folder of the run.
        output: Folder that does not exist or is empty.
        formats: Some of ``FORMATS``.
        batch_size: Fixed batch of the frozen graph and ONNX; None: any.
        checkpoint: Path prefix; None: the newest valid one.

    Raises:
        ConfigError: An argument is wrong, or the output exists or cannot be written.
        DataError: There is no checkpoint or no picture, or the results differ.
    """
    _check(formats, batch_size)
    with _open_folder(output) as folder:
        record = run_record.read(find_record(model_dir))
        checkpoint = find_checkpoint(model_dir, config, checkpoint)
        config = Config(config.to_dict())
        config.precision.mode = "must_keep_origin_dtype"  # What serves is float32.
        config.data.use_ten_crop = False
        model = graphs.Model(
            config,
            record.class_names,
            dict(record.conversion),
            checkpoint,
            batch_size,
        )
        with restore.noticing_deletion(checkpoint):
            trial = prepare_trial(model, model_dir)
            graphs.write_names(model, folder)
            differences = [FORMATS[name](model, folder, trial) for name in formats]
        step = checkpoints.step_of(checkpoint)
        found = [r for r in read_evaluations(model_dir) if r["global_step"] == step]
        card = describe_model(record, step, found[0] if found else None, formats)
        path = os.path.join(folder, CARD_FILE)
        files.write_bytes(path, card.encode("utf-8", "replace"))
    return Export(output, step, len(trial.images), max(differences))


def _check(formats: Sequence[str], batch_size: Optional[int]) -> None:
    """Raise ConfigError where the arguments cannot work."""
    problems = [
        f"there is no format {name!r}: must be one of {', '.join(FORMATS)}"
        for name in formats or [""]
        if name not in FORMATS
    ]
    if batch_size is not None and batch_size < 1:
        problems.append(f"the batch size is {batch_size}: must be at least 1")
    if problems:
        raise ConfigError(problems)
    if "onnx" in formats:
        graphs.require_onnx()


def _export_saved_model(model: graphs.Model, folder: str, trial: Trial) -> float:
    path = os.path.join(folder, SAVED_MODEL)
    graphs.write_saved_model(model, path)
    differences = []
    values = {graphs.BYTES_SIGNATURE: trial.pictures, IMAGES: trial.images}
    for signature, batch in values.items():
        outputs = graphs.run_saved_model(path, signature, batch)
        probabilities = outputs[PROBABILITIES]
        name = f"{SAVED_MODEL}, signature {signature}"
        differences.append(compare(name, probabilities, trial))
        index = probabilities.argmax(axis=1)
        names = [os.fsencode(model.class_names[i]) for i in index]
        if list(outputs["class_index"]) != list(index) or (
            list(outputs["class_name"]) != names
        ):
            raise DataError(f"{name}: the class is not that of highest probability")
    return max(differences)


def _export_frozen(model: graphs.Model, folder: str, trial: Trial) -> float:
    path = os.path.join(folder, FROZEN_FILE)
    files.write_bytes(path, graphs.freeze(model).SerializeToString())
    script = _ATC.format(
        images=IMAGES,
        probabilities=PROBABILITIES,
        batch_size=model.batch_size or 1,
        size=model.config.data.image_size,
    )
    files.write_bytes(os.path.join(folder, ATC_FILE), script.encode())
    answers = run_in_batches(lambda x: graphs.run_frozen(path, x), model, trial)
    return compare(FROZEN_FILE, answers, trial)


def _export_onnx(model: graphs.Model, folder: str, trial: Trial) -> float:
    path = os.path.join(folder, ONNX_FILE)
    name = find_network(model.config.model.network).name
    files.write_bytes(path, graphs.to_onnx(graphs.freeze(model), name))
    answers = run_in_batches(lambda x: graphs.run_onnx(path, x), model, trial)
    return compare(ONNX_FILE, answers, trial)


# Each writes a format into a folder and returns its largest difference.
FORMATS: Dict[str, Callable[[graphs.Model, str, Trial], float]] = {
    "saved_model": _export_saved_model,
    "frozen": _export_frozen,
    "onnx": _export_onnx,
}


@contextlib.contextmanager
def _open_folder(path: str) -> Iterator[str]:
    """Make a folder that appears when it is complete.

    Raises:
        ConfigError: The folder has content, or cannot be made.
        DataError: The folder cannot be written to its end.
    """
    if os.path.isdir(path) and os.listdir(path) or os.path.isfile(path):
        raise ConfigError("exists: give a new or empty folder as --output", path)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(files.replacing_folder(path))
        except OSError as error:
            raise disk.error_at(path, "cannot be made", error) from error
        try:
            yield folder
            stack.close()
        except OSError as error:
            raise DataError(f"cannot be written: {error}", path) from error
        except tf.errors.OpError as error:
            # TensorFlow writes the SavedModel, and its error begins with the file.
            if folder not in error.message:
                raise
            reason = error.message.partition("\n")[0].replace(folder, path)
            raise DataError(f"cannot be written: {reason}", path) from error
