"""The model function: logits -> predictions, metrics, or one training step."""

from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from alexnet_estimator import inputs, warm_start
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.hooks.answers import COLLECTION as ANSWERS
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.networks import find_network
from alexnet_estimator.networks.graphs import Dropout, build_logits, layer_of
from alexnet_estimator.optim import optimizers, schedules
from alexnet_estimator.runtime.base import ModelFn, Runtime

MakeHooks = Callable[[StepTensors], List[tf.train.SessionRunHook]]


class Training(NamedTuple):
    """What only a training graph needs.

    Attributes:
        plan: the learning rate's.
        plateau_factor: multiplies the learning rate.
        make_hooks: called with the step's scalars.
        checkpoint: path prefix that the session will restore, where this rank has one.
        num_warm_layers: of another network, with a learning rate of their own; the same
            on all ranks.
        read_weights: of those layers, by name, where this rank has them.
    """

    plan: schedules.LearningRatePlan
    plateau_factor: float
    make_hooks: MakeHooks
    checkpoint: Optional[str] = None
    num_warm_layers: int = 0
    read_weights: Optional[Callable[[], Mapping[str, np.ndarray]]] = None


def build_model_fn(
    config: Config,
    num_classes: int,
    runtime: Runtime,
    training: Optional[Training] = None,
    checkpoint: Optional[str] = None,
) -> ModelFn:
    """Return the Estimator's ``model_fn(features, labels, mode)``.

    Args:
        config: Resolved configuration: ``data.mean_rgb`` and ``precision.mode`` are
            concrete.
        num_classes: Number of classes of the data.
        runtime: Runtime that averages gradients and sums metrics over ranks.
        training: What only mode TRAIN needs.
        checkpoint: Path prefix of the checkpoint that modes EVAL and PREDICT will
            restore, where this rank has it; a graph that it does not fit is refused.
    """

    def model_fn(
        features: inputs.Features, labels: tf.Tensor, mode: str
    ) -> tf.estimator.EstimatorSpec:
        is_training = mode == tf.estimator.ModeKeys.TRAIN
        images = inputs.normalise(features, config.data.mean_rgb, config.data)
        logits = build_logits(
            images,
            num_classes,
            config.model,
            _make_dropout(config, runtime) if is_training else None,
            runtime.compute_dtype(config.precision),
        )
        if features["image"].shape.ndims == 5:
            logits = _average_views(logits, int(features["image"].shape[1]))
        if checkpoint is not None and not is_training:
            restore.check_fit(checkpoint, tf.global_variables())
        if mode == tf.estimator.ModeKeys.PREDICT:
            return _prediction_spec(logits, config)
        if mode == tf.estimator.ModeKeys.EVAL:
            return _evaluation_spec(logits, labels, features["weight"], config, runtime)
        assert training is not None, "mode TRAIN needs the argument training"
        return _training_spec(logits, labels, config, runtime, training)

    return model_fn


def cross_entropy(
    labels: tf.Tensor, logits: tf.Tensor, label_smoothing: float
) -> tf.Tensor:
    """Return each image's cross-entropy, float32 [batch].

    Args:
        labels: int32 [batch].
        logits: float32 [batch, num_classes].
        label_smoothing: the part of the target that is spread over all classes.
    """
    targets = tf.one_hot(labels, logits.shape[1].value, dtype=tf.float32)
    if label_smoothing > 0:
        share = label_smoothing / logits.shape[1].value
        targets = targets * (1.0 - label_smoothing) + share
    return tf.nn.softmax_cross_entropy_with_logits(
        labels=tf.stop_gradient(targets), logits=logits
    )


def _average_views(logits: tf.Tensor, num_views: int) -> tf.Tensor:
    """Return logits whose softmax is the mean of that of the views (section 4.1).

    Args:
        logits: float32 [batch * num_views, num_classes].
        num_views: of each picture.
    """
    shape = [-1, num_views, int(logits.shape[1])]
    log_probabilities = tf.reshape(tf.nn.log_softmax(logits), shape)
    return tf.reduce_logsumexp(log_probabilities, axis=1)


def _make_dropout(config: Config, runtime: Runtime) -> Dropout:
    """Return dropout whose masks depend on (seed, rank, layer, step) alone."""
    step = tf.cast(tf.train.get_or_create_global_step(), tf.int32)
    layers = find_network(config.model.network).layer_names

    def dropout(x: tf.Tensor, keep_prob: float, layer_name: str) -> tf.Tensor:
        if layer_name not in layers:
            raise ConfigError(
                f"dropout is called for the layer {layer_name!r}: must be one of "
                f"{', '.join(layers)}",
                config.model.network,
            )
        # A rank has a stream for each layer; those of all ranks are different.
        stream = len(layers) * runtime.rank + layers.index(layer_name)
        seed = tf.stack([tf.constant((config.train.seed + stream) % 2**31), step])
        return runtime.dropout(x, keep_prob, seed)

    return dropout


def _prediction_spec(logits: tf.Tensor, config: Config) -> tf.estimator.EstimatorSpec:
    predictions = {"logits": logits, "probabilities": tf.nn.softmax(logits)}
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.PREDICT,
        predictions=predictions,
        scaffold=_averages_scaffold(config),
    )


def _evaluation_spec(
    logits: tf.Tensor,
    labels: tf.Tensor,
    weight: tf.Tensor,
    config: Config,
    runtime: Runtime,
) -> tf.estimator.EstimatorSpec:
    """Count each image of weight 1 once; the sums over ranks are the result.

    ``AnswersHook`` finds int32 [3, batch] in the graph: labels, answers and weights.
    """
    with runtime.float32_scope():
        sums = batch_sums(logits, labels, weight)
        metrics = {
            name: _summed_metric(name, value, runtime)
            for name, value in sorted(sums.items())
        }
        # Estimator averages this over batches; our own sums are exact.
        loss = sums["loss_sum"] / tf.cast(tf.size(labels), tf.float32)
    answers = tf.argmax(logits, axis=1, output_type=tf.int32)
    rows = tf.stack([labels, answers, tf.cast(weight, tf.int32)])
    tf.add_to_collection(ANSWERS, rows)
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.EVAL,
        loss=loss,
        eval_metric_ops=metrics,
        evaluation_hooks=runtime.start_hooks(),
        scaffold=_averages_scaffold(config),
    )


def batch_sums(
    logits: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor
) -> Dict[str, tf.Tensor]:
    """Return what an evaluation adds up over batches and ranks.

    Counts are int32: a device that computes float32 graphs in float16 would lose count
    after 2,048 images.  What is counted by class is counted by ``AnswersHook``.

    Args:
        logits: float32 [batch, num_classes].
        labels: int32 [batch].
        weight: float32 [batch], 1 for an image and 0 for padding.

    Returns:
        ``num_images``, int32 scalar; ``num_top_5``, int32 scalar; ``loss_sum``, float32
        scalar.
    """
    num_classes = logits.shape[1].value
    is_image = tf.cast(weight, tf.int32)
    in_top_5 = tf.nn.in_top_k(logits, labels, min(5, num_classes))
    return {
        "num_images": tf.reduce_sum(is_image),
        "num_top_5": tf.reduce_sum(tf.cast(in_top_5, tf.int32) * is_image),
        "loss_sum": tf.reduce_sum(cross_entropy(labels, logits, 0.0) * weight),
    }


def _summed_metric(
    name: str, value: tf.Tensor, runtime: Runtime
) -> Tuple[tf.Tensor, tf.Operation]:
    """Return (sum over batches and ranks, update op) of a float32 or int32 tensor."""
    total = tf.get_variable(
        f"metrics/{name}",
        value.shape,
        value.dtype,
        tf.zeros_initializer(),
        trainable=False,
        collections=[tf.GraphKeys.LOCAL_VARIABLES, tf.GraphKeys.METRIC_VARIABLES],
    )
    update = tf.assign_add(total, value)
    # Estimator runs the value once, after the last batch: one all-reduce a rank.
    return runtime.all_reduce_sum(tf.identity(total)), update


def _averages_scaffold(config: Config) -> Optional[tf.train.Scaffold]:
    """Return a scaffold that restores averaged weights, if the run has them."""
    if config.optim.ema_decay == 0:
        return None
    averages = tf.train.ExponentialMovingAverage(config.optim.ema_decay)
    names = averages.variables_to_restore(_trained_variables(config))
    names["global_step"] = tf.train.get_or_create_global_step()
    return tf.train.Scaffold(saver=tf.train.Saver(names))


def _training_spec(
    logits: tf.Tensor,
    labels: tf.Tensor,
    config: Config,
    runtime: Runtime,
    training: Training,
) -> tf.estimator.EstimatorSpec:
    step = tf.train.get_or_create_global_step()
    with runtime.float32_scope():
        losses = cross_entropy(labels, logits, config.optim.label_smoothing)
        loss = tf.reduce_mean(losses)
    learning_rate = training.plateau_factor * schedules.learning_rate(
        tf.cast(step, tf.float32), training.plan, ops=tf
    )
    is_decayed = runtime.can_decay_slots and optimizers.can_decay_slots(config.optim)
    optimizer = _make_optimizer(learning_rate, config, training, is_decayed)
    scaled = runtime.wrap_optimizer(optimizer, config.precision)
    gradients = scaled.optimizer.compute_gradients(
        loss, var_list=_trained_variables(config)
    )
    gradients, norm = optimizers.clip_gradients(
        gradients, config.optim.gradient_clip_norm
    )
    if not is_decayed:
        gradients = optimizers.decay_weights(gradients, config.optim.weight_decay)
    # Such as the statistics of batch normalisation; most networks have none.
    with tf.control_dependencies(_unfrozen_updates(config)):
        train_op = scaled.optimizer.apply_gradients(gradients, global_step=step)
    # Read behind the update, so that hooks need not ask for it again: every call of
    # session.run costs an NPU about as much as a step.
    with tf.control_dependencies([train_op]):
        next_step = step.read_value()
    tensors = StepTensors(
        next_step, loss, learning_rate, norm, scaled.scale, scaled.num_skipped
    )
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.TRAIN,
        # Estimator's own NanTensorHook would end a run whose overflowed step is
        # skipped; FiniteGuard looks at the true loss.  NaN is below nothing.
        loss=tf.where(loss < np.inf, loss, tf.zeros_like(loss)),
        train_op=train_op,
        training_hooks=runtime.start_hooks() + training.make_hooks(tensors),
        scaffold=_first_scaffold(training),
    )


def _make_optimizer(
    learning_rate: tf.Tensor, config: Config, training: Training, decays_slots: bool
) -> tf.train.Optimizer:
    if training.num_warm_layers == 0:
        return optimizers.make_optimizer(config.optim, learning_rate, decays_slots)
    layers = find_network(config.model.network).layer_names
    warm_layers = layers[: training.num_warm_layers]
    return optimizers.make_optimizer(
        config.optim,
        learning_rate,
        decays_slots,
        is_warm=lambda variable: layer_of(variable) in warm_layers,
        warm_factor=config.warm_start.learning_rate_factor,
    )


def _frozen_layers(config: Config) -> Tuple[str, ...]:
    network = find_network(config.model.network)
    return network.layers_until(config.warm_start.frozen_until)


def _trained_variables(config: Config) -> List[tf.Variable]:
    """Return the weights above the frozen ones, which get no gradients or averages."""
    frozen = _frozen_layers(config)
    return [v for v in tf.trainable_variables() if layer_of(v) not in frozen]


def _unfrozen_updates(config: Config) -> List[tf.Operation]:
    """Return the operations by which layers update variables without gradients."""
    frozen = _frozen_layers(config)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    return [op for op in updates if op.name.split("/")[1] not in frozen]


def _first_scaffold(training: Training) -> Optional[tf.train.Scaffold]:
    """Return how a session gets its first values, where the usual way will not do."""
    if training.checkpoint is None and training.read_weights is not None:
        return warm_start.initializing_scaffold(training.read_weights)
    return restore.restoring_scaffold(training.checkpoint)
