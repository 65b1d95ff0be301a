"""The export job: it writes a model for serving and compares it with its checkpoint."""

import contextlib
import os
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Sequence

from alexnet_estimator import checkpoints, disk, files, run_record
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.jobs.evaluate import find_checkpoint, find_evaluation
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
    """Result of an export.

    Attributes:
        folder: Folder of the exported model.
        global_step: Global step of the checkpoint; None if its name has no step.
        num_pictures: Number of pictures on which every format was compared with the
            checkpoint.
        max_difference: Largest difference between a probability and the checkpoint's.
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
    """Export a checkpoint into a new folder.

    Every exported file is loaded and compared with the checkpoint on up to
    ``trial.MAX_PICTURES`` pictures of the run's evaluation.  The folder appears only if
    all of them return the same probabilities.

    Args:
        config: Configuration of the run.
        model_dir: Folder of the run.
        output: Path of a folder that does not exist or is empty.
        formats: Names of the formats, keys of ``FORMATS``.
        batch_size: Fixed batch size of the frozen graph and ONNX model; None for any.
        checkpoint: Path prefix of the checkpoint; None for the one that counts, see
            ``find_checkpoint``.

    Raises:
        ConfigError: An argument is wrong, or the folder exists or cannot be created.
        DataError: A checkpoint or picture is missing, or results differ.
    """
    _check(formats, batch_size)
    with _new_folder(output) as folder:
        record = run_record.read(find_record(model_dir))
        checkpoint = find_checkpoint(model_dir, config, checkpoint)
        config = Config(config.to_dict())
        config.precision.mode = "must_keep_origin_dtype"  # Exports are float32.
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
        card = describe_model(record, step, find_evaluation(model_dir, step), formats)
        path = os.path.join(folder, CARD_FILE)
        files.write_bytes(path, card.encode("utf-8", "replace"))
    return Export(output, step, len(trial.images), max(differences))


def _check(formats: Sequence[str], batch_size: Optional[int]) -> None:
    """Raise ConfigError if an argument is wrong or a package is missing."""
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


# Each function writes one format into a folder, compares it with the checkpoint and
# returns the largest difference.
FORMATS: Dict[str, Callable[[graphs.Model, str, Trial], float]] = {
    "saved_model": _export_saved_model,
    "frozen": _export_frozen,
    "onnx": _export_onnx,
}


@contextlib.contextmanager
def _new_folder(path: str) -> Iterator[str]:
    """Yield a temporary folder that gets its final path when the block has ended.

    Raises:
        ConfigError: The path is that of a file or of a folder that is not empty.
        UserError: The folder cannot be created.
        DataError: A file in the folder cannot be written.
    """
    if os.path.isdir(path) and os.listdir(path) or os.path.isfile(path):
        raise ConfigError("exists: give a new or empty folder as --output", path)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(files.replacing_folder(path))
        except OSError as error:
            raise disk.error_at(path, "cannot be created", error) from error
        try:
            yield folder
            stack.close()
        except OSError as error:
            raise DataError(f"cannot be written: {error}", path) from error
        except tf.errors.OpError as error:
            # TensorFlow writes the SavedModel.  If that fails, its message names the
            # file; other errors of TensorFlow are passed on.
            if folder not in error.message:
                raise
            reason = error.message.partition("\n")[0].replace(folder, path)
            raise DataError(f"cannot be written: {reason}", path) from error
