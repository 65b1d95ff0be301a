"""Export: a run's model for serving, compared with its checkpoint before it appears."""

import contextlib
import copy
import io
import itertools
import os
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np
from PIL import Image

from alexnet_estimator import checkpoints, files, inputs
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.jobs.evaluate import find_checkpoint
from alexnet_estimator.jobs.export import graphs
from alexnet_estimator.jobs.predict.classifier import (
    IMAGES,
    PROBABILITIES,
    SAVED_MODEL,
    find_record,
    read_record,
    trained,
)
from alexnet_estimator.jobs.run import open_data
from alexnet_estimator.networks import find_network
from alexnet_estimator.records import examples, tfrecord
from alexnet_estimator.records.dataset import TRAIN, VALIDATION
from alexnet_estimator.runtime.base import session_config
from alexnet_estimator.runtime.local import LocalRuntime

FROZEN_FILE = "model.pb"
ONNX_FILE = "model.onnx"
ATC_FILE = "to_om.sh"
MAX_PICTURES = 50
MAX_DIFFERENCE = 1e-4
_ATC = """\
#!/bin/sh
# Compiles {frozen} to {om}.om for inference on an Ascend chip, with CANN's atc.
# The argument is "Ascend" and the chip's name as `npu-smi info` shows it, such as
# Ascend310, Ascend310P3 or Ascend910A.  Input: float32, RGB from 0 to 255.
cd "$(dirname "$0")" || exit
exec {command}
"""
_ATC_COMMAND = (
    "atc --framework=3 --model={frozen} --output={om} --input_format=NHWC "
    '--input_shape="{images}:{batch_size},{size},{size},3" '
    '--out_nodes="{probabilities}:0" --output_type=FP32 '
    '--soc_version="${{1:-Ascend310}}"'
)


class Export(NamedTuple):
    """What was exported.

    Attributes:
        folder: where.
        global_step: of the checkpoint; None: its name does not tell.
        num_pictures: on which every format was compared with the checkpoint.
        max_difference: of a probability, over all pictures and formats.
    """

    folder: str
    global_step: Optional[int]
    num_pictures: int
    max_difference: float


class _Trial(NamedTuple):
    """What an exported model is tried on.

    Attributes:
        pictures: encoded.
        images: the same decoded, uint8 [num_pictures, size, size, 3].
        expected: what the checkpoint says, float32 [num_pictures, num_classes].
    """

    pictures: List[bytes]
    images: np.ndarray
    expected: np.ndarray


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
    gives, on up to ``MAX_PICTURES`` pictures that the run was evaluated with.

    Args:
        config: of the run.
        model_dir: folder of the run.
        output: a folder that does not exist or is empty.
        formats: of ``FORMATS``.
        batch_size: of frozen graph and ONNX; None: any.
        checkpoint: path prefix; None: the newest valid one.

    Raises:
        ConfigError: an argument is wrong, the output exists or cannot be written.
        DataError: no checkpoint or pictures, or the results differ.
    """
    _check(formats, batch_size)
    with _complete_folder(output) as folder:
        class_names, conversion = read_record(find_record(model_dir))
        checkpoint = find_checkpoint(model_dir, checkpoint)
        config = _for_serving(config)
        model = graphs.Model(config, class_names, conversion, checkpoint, batch_size)
        trial = _prepare_trial(model, model_dir)
        graphs.write_names(model, folder)
        differences = [FORMATS[name](model, folder, trial) for name in formats]
    return Export(
        output, checkpoints.step_of(checkpoint), len(trial.images), max(differences)
    )


def _check(formats: Sequence[str], batch_size: Optional[int]) -> None:
    """Raise ConfigError where the arguments cannot work."""
    problems = [
        f"no format {name!r}; choose from {', '.join(FORMATS)}"
        for name in formats or [""]
        if name not in FORMATS
    ]
    if batch_size is not None and batch_size < 1:
        problems.append(f"the batch size is {batch_size}: must be at least 1")
    if problems:
        raise ConfigError(problems)
    if "onnx" in formats:
        graphs.require_onnx()


def _for_serving(config: Config) -> Config:
    """Return the configuration of the same model in float32, for single images."""
    config = copy.deepcopy(config)
    config.precision.mode = "must_keep_origin_dtype"
    config.data.use_ten_crop = False
    return config


def _prepare_trial(model: graphs.Model, model_dir: str) -> _Trial:
    """Let the checkpoint itself classify pictures of its evaluation."""
    config = model.config
    pictures = _find_pictures(config, model_dir)

    def input_fn() -> tf.data.Dataset:
        return inputs.picture_batches(
            lambda: iter(pictures), config.data, len(pictures)
        )

    predict_batches = trained(
        LocalRuntime("cpu"), config, len(model.class_names), model.checkpoint
    )
    (expected,) = predict_batches(input_fn)
    with tf.Graph().as_default(), tf.Session(config=session_config(0)) as session:
        iterator = tf.data.make_initializable_iterator(input_fn())
        features = iterator.get_next()
        session.run(iterator.initializer)
        return _Trial(pictures, session.run(features)["image"], expected)


def _find_pictures(config: Config, model_dir: str) -> List[bytes]:
    """Return the first pictures of the validation split, or else of training."""
    if config.data.synthetic:
        return [_draw_noise(seed, config.data.image_size) for seed in range(2)]
    dataset = open_data(config, model_dir)
    paths = dataset.shard_paths(VALIDATION) or dataset.shard_paths(TRAIN)
    records = itertools.chain.from_iterable(map(tfrecord.read_records, paths))
    whole = (record for record in records if not record.problem)
    return [
        examples.parse(record.data)[0]
        for record in itertools.islice(whole, MAX_PICTURES)
    ]


def _draw_noise(seed: int, size: int) -> bytes:
    pixels = np.random.RandomState(seed).randint(0, 256, [size, size, 3])
    encoded = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def _export_saved_model(model: graphs.Model, folder: str, trial: _Trial) -> float:
    path = os.path.join(folder, SAVED_MODEL)
    graphs.write_saved_model(model, path)
    differences = []
    values = {graphs.BYTES_SIGNATURE: trial.pictures, IMAGES: trial.images}
    for signature, batch in values.items():
        outputs = graphs.run_saved_model(path, signature, batch)
        probabilities = outputs[PROBABILITIES]
        name = f"{SAVED_MODEL}, signature {signature}"
        differences.append(_compare(name, probabilities, trial))
        index = probabilities.argmax(axis=1)
        names = [os.fsencode(model.class_names[i]) for i in index]
        if list(outputs["class_index"]) != list(index) or (
            list(outputs["class_name"]) != names
        ):
            raise DataError(f"{name}: the class is not that of highest probability")
    return max(differences)


def _export_frozen(model: graphs.Model, folder: str, trial: _Trial) -> float:
    path = os.path.join(folder, FROZEN_FILE)
    with open(path, "wb") as file:
        file.write(graphs.freeze(model).SerializeToString())
    files.write_bytes(os.path.join(folder, ATC_FILE), atc_script(model).encode())
    return _compare(FROZEN_FILE, _run(graphs.run_frozen, path, model, trial), trial)


def _export_onnx(model: graphs.Model, folder: str, trial: _Trial) -> float:
    path = os.path.join(folder, ONNX_FILE)
    with open(path, "wb") as file:
        name = find_network(model.config.model.network).name
        file.write(graphs.to_onnx(graphs.freeze(model), name))
    return _compare(ONNX_FILE, _run(graphs.run_onnx, path, model, trial), trial)


FORMATS: Dict[str, Callable[[graphs.Model, str, _Trial], float]] = {
    "saved_model": _export_saved_model,
    "frozen": _export_frozen,
    "onnx": _export_onnx,
}


def atc_script(model: graphs.Model) -> str:
    """Return the shell script that compiles the frozen graph beside it."""
    names = {"frozen": FROZEN_FILE, "om": os.path.splitext(FROZEN_FILE)[0]}
    command = _ATC_COMMAND.format(
        **names,
        images=IMAGES,
        probabilities=PROBABILITIES,
        batch_size=model.batch_size or 1,
        size=model.config.data.image_size,
    )
    return _ATC.format(**names, command=command)


def _run(
    run_file: Callable[[str, np.ndarray], np.ndarray],
    path: str,
    model: graphs.Model,
    trial: _Trial,
) -> np.ndarray:
    """Run a file on the images of the trial, in batches of the size that it has."""
    num_images = len(trial.images)
    batch_size = model.batch_size or num_images
    padding = -num_images % batch_size
    images = np.pad(trial.images, [(0, padding), (0, 0), (0, 0), (0, 0)])
    batches = images.reshape([-1, batch_size, *images.shape[1:]])
    return np.concatenate([run_file(path, batch) for batch in batches])[:num_images]


def _compare(name: str, probabilities: np.ndarray, trial: _Trial) -> float:
    """Return the largest difference to what the checkpoint says.

    Raises:
        DataError: it is too large, or not a number.
    """
    difference = float(np.abs(probabilities - trial.expected).max())
    if not difference <= MAX_DIFFERENCE:
        raise DataError(
            f"{name}: a probability differs from the checkpoint's by {difference:.2g}, "
            f"more than {MAX_DIFFERENCE:g}, on {len(trial.images)} pictures; nothing "
            "was exported"
        )
    return difference


@contextlib.contextmanager
def _complete_folder(path: str) -> Iterator[str]:
    """Make a folder that appears when it is complete.

    Raises:
        ConfigError: it exists, or cannot be made.
        DataError: it cannot be written to its end.
    """
    if os.path.isdir(path) and os.listdir(path) or os.path.isfile(path):
        raise ConfigError("exists: give --output a new folder", path)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(files.replacing_folder(path))
        except OSError as error:
            raise ConfigError(f"cannot be made: {error.strerror}", path) from error
        try:
            yield folder
            stack.close()
        except OSError as error:
            raise DataError(f"cannot be written: {error}", path) from error
