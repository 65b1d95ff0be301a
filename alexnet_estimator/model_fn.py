"""The model function: builds predictions, metrics or a training step from logits."""

from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from alexnet_estimator import inputs, warm_start
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.hooks.answers import ANSWERS, NUM_CLASSES_SHOWN
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.networks import find_network
from alexnet_estimator.networks.graphs import Dropout, build_logits, layer_of
from alexnet_estimator.optim import optimizers, schedules
from alexnet_estimator.runtime.base import ModelFn, Runtime

MakeHooks = Callable[[StepTensors], List[tf.train.SessionRunHook]]


class Training(NamedTuple):
    """Arguments of mode TRAIN.

    Attributes:
        plan: Schedule of the learning rate.
        plateau_factor: Factor of the learning rate.
        make_hooks: Function that returns the hooks for the scalars of a step.
        checkpoint: Path prefix of the checkpoint that the session restores; None on a
            rank without one.
        num_warm_layers: Number of layers that are restored from another network and
            have another learning rate; the same on all ranks.
        read_weights: Function that returns the weights of these layers by name; None on
            a rank without them.
        class_weights: Factor of the loss of each class; empty if all are 1.
    """

    plan: schedules.LearningRatePlan
    plateau_factor: float = 1.0
    make_hooks: MakeHooks = lambda tensors: []
    checkpoint: Optional[str] = None
    num_warm_layers: int = 0
    read_weights: Optional[Callable[[], Mapping[str, np.ndarray]]] = None
    class_weights: Sequence[float] = ()


def build_model_fn(
    config: Config,
    num_classes: int,
    runtime: Runtime,
    training: Optional[Training] = None,
    checkpoint: Optional[str] = None,
) -> ModelFn:
    """Return the Estimator's ``model_fn(features, labels, mode)``.

    Args:
        config: Resolved configuration.
        num_classes: Number of classes of the data.
        runtime: Runtime that averages gradients and sums metrics over the ranks.
        training: Arguments of mode TRAIN; None if only the other modes are used.
        checkpoint: Path prefix of the checkpoint that modes EVAL and PREDICT restore;
            None on a rank without it.  Its variables are compared with the graph.
    """

    def model_fn(
        features: inputs.Features, labels: tf.Tensor, mode: str
    ) -> tf.estimator.EstimatorSpec:
        is_training = mode == tf.estimator.ModeKeys.TRAIN
        # float32 [batch, size, size, 3]; with ten-crop, [batch * 10, size, size, 3]
        images = inputs.normalise(features, config.data.mean_rgb, config.data)
        logits = build_logits(
            images,
            num_classes,
            config.model,
            _make_dropout(config, runtime) if is_training else None,
            runtime.compute_dtype(config.precision),
        )
        if features["image"].shape.ndims == 5:
            # [batch * views, num_classes] -> [batch, num_classes]
            logits = _average_views(logits, int(features["image"].shape[1]))
        if checkpoint is not None and not is_training:
            restore.check_variables(checkpoint, tf.global_variables())
        if mode == tf.estimator.ModeKeys.PREDICT:
            return _prediction_spec(logits, config)
        if mode == tf.estimator.ModeKeys.EVAL:
            return _evaluation_spec(logits, labels, features, config, runtime)
        assert training is not None, "mode TRAIN needs the argument training"
        targets = tf.one_hot(labels, num_classes, dtype=tf.float32)
        targets = inputs.mix_targets(targets, features)
        weights = None
        if "weight" in features:
            # [batch] -> [batch, 1]: the weight of a mixed image is mixed like a target.
            weights = inputs.mix_targets(features["weight"][:, tf.newaxis], features)
        return _training_spec(logits, targets, weights, config, runtime, training)

    return model_fn


def cross_entropy(
    targets: tf.Tensor, logits: tf.Tensor, label_smoothing: float
) -> tf.Tensor:
    """Return the cross-entropy of each image, float32 [batch].

    Args:
        targets: float32 [batch, num_classes], the sum of each row is 1.
        logits: float32 [batch, num_classes].
        label_smoothing: Share of the target that is spread evenly over all classes.
    """
    if label_smoothing > 0:
        share = label_smoothing / logits.shape[1].value
        targets = targets * (1.0 - label_smoothing) + share
    return tf.nn.softmax_cross_entropy_with_logits(
        labels=tf.stop_gradient(targets), logits=logits
    )


def _average_views(logits: tf.Tensor, num_views: int) -> tf.Tensor:
    """Average the predictions of the views of each picture (section 4.1).

    Args:
        logits: float32 [batch * num_views, num_classes].
        num_views: Number of views of each picture.

    Returns:
        float32 [batch, num_classes], whose softmax is the mean of the softmax of the
        views.
    """
    # [batch * views, num_classes] -> [batch, views, num_classes]
    shape = [-1, num_views, int(logits.shape[1])]
    log_probabilities = tf.reshape(tf.nn.log_softmax(logits), shape)
    return tf.reduce_logsumexp(log_probabilities, axis=1)


def _make_dropout(config: Config, runtime: Runtime) -> Dropout:
    """Return a dropout function whose masks depend only on seed, rank, layer and step.

    A resumed run therefore continues with the same masks.
    """
    step = tf.cast(tf.train.get_or_create_global_step(), tf.int32)
    layers = find_network(config.model.network).layer_names

    def dropout(x: tf.Tensor, keep_prob: float, layer_name: str) -> tf.Tensor:
        if layer_name not in layers:
            raise ConfigError(
                f"dropout is called with the layer {layer_name!r}: must be one of "
                f"{', '.join(layers)}",
                config.model.network,
            )
        # Each layer of each rank has its own stream of random numbers.
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
    features: inputs.Features,
    config: Config,
    runtime: Runtime,
) -> tf.estimator.EstimatorSpec:
    """Return the specification of an evaluation, whose metrics are sums over all ranks.

    Images of weight 0, which pad the last batches, do not count.  A collection of the
    graph holds the answers for ``AnswersHook``.
    """
    weight = features["weight"]
    with runtime.float32_scope(), tf.name_scope("metrics"):
        sums = batch_sums(logits, labels, weight)
        metrics = {
            name: _summed_metric(name, value, runtime)
            for name, value in sorted(sums.items())
        }
        # Estimator only logs this mean over batches.  The result uses loss_sum, which
        # is exact although the last batch is padded.
        loss = sums["loss_sum"] / tf.cast(tf.size(labels), tf.float32)
        for tensor in _answers(logits, labels, weight):
            tf.add_to_collection(ANSWERS, tensor)
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.EVAL,
        loss=loss,
        eval_metric_ops=metrics,
        evaluation_hooks=runtime.start_hooks(),
        scaffold=_averages_scaffold(config),
    )


def _answers(
    logits: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor]:
    """Return the answers of a batch as ``hooks.answers.ANSWERS`` describes them.

    Args:
        logits: float32 [batch, num_classes].
        labels: int32 [batch].
        weight: float32 [batch], 1 for an image and 0 for padding.
    """
    # [batch, num_classes] -> [batch]
    answers = tf.argmax(logits, axis=1, output_type=tf.int32)
    given = tf.stack([labels, tf.cast(weight, tf.int32), answers], axis=1)
    # [batch, num_classes] -> [batch, n]
    num_shown = min(NUM_CLASSES_SHOWN, logits.shape[1].value)
    _, classes = tf.nn.top_k(logits, num_shown)
    # The softmax of different logits may be equal, so its order could be another one.
    probabilities, _ = tf.nn.top_k(tf.nn.softmax(logits), num_shown)
    return tf.concat([given, classes], axis=1), probabilities


def batch_sums(
    logits: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor
) -> Dict[str, tf.Tensor]:
    """Return the sums of one batch, which an evaluation adds up over batches and ranks.

    Counts are int32, because a device that computes float32 graphs in float16 could not
    count beyond 2,048 images.  ``AnswersHook`` counts the answers by class.

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
    targets = tf.one_hot(labels, num_classes, dtype=tf.float32)
    in_top_5 = tf.nn.in_top_k(logits, labels, min(5, num_classes))
    return {
        "num_images": tf.reduce_sum(is_image),
        "num_top_5": tf.reduce_sum(tf.cast(in_top_5, tf.int32) * is_image),
        "loss_sum": tf.reduce_sum(cross_entropy(targets, logits, 0.0) * weight),
    }


def _summed_metric(
    name: str, value: tf.Tensor, runtime: Runtime
) -> Tuple[tf.Tensor, tf.Operation]:
    """Return the sum of a tensor over batches and ranks, and the update of each batch.

    Args:
        name: Name of the metric.
        value: float32 or int32 tensor of one batch.
        runtime: Runtime that sums over the ranks.
    """
    total = tf.get_variable(
        f"metrics/{name}",
        value.shape,
        value.dtype,
        tf.zeros_initializer(),
        trainable=False,
        collections=[tf.GraphKeys.LOCAL_VARIABLES, tf.GraphKeys.METRIC_VARIABLES],
    )
    update = tf.assign_add(total, value)
    # Estimator evaluates the value once, after the last batch, so that each rank takes
    # part in exactly one all-reduce.
    return runtime.all_reduce_sum(tf.identity(total)), update


def _averages_scaffold(config: Config) -> Optional[tf.train.Scaffold]:
    """Return a scaffold that restores the averaged weights; None without averages."""
    if config.optim.ema_decay == 0:
        return None
    averages = tf.train.ExponentialMovingAverage(config.optim.ema_decay)
    names = averages.variables_to_restore(_trained_variables(config))
    names["global_step"] = tf.train.get_or_create_global_step()
    return tf.train.Scaffold(saver=tf.train.Saver(names))


def _training_spec(
    logits: tf.Tensor,
    targets: tf.Tensor,
    weights: Optional[tf.Tensor],
    config: Config,
    runtime: Runtime,
    training: Training,
) -> tf.estimator.EstimatorSpec:
    step = tf.train.get_or_create_global_step()
    # The scopes are for readers of the graph.  No variable is created within one: those
    # of Adam would get other names, and old checkpoints would not fit.
    with runtime.float32_scope(), tf.name_scope("loss"):
        losses = cross_entropy(targets, logits, config.optim.label_smoothing)
        # The mean below does not divide by the sum of the weights.  The sums of ranks
        # differ, so the mean over ranks would not be that of the global batch.
        if training.class_weights:
            by_class = tf.constant(training.class_weights, tf.float32)
            losses *= tf.reduce_sum(targets * by_class, axis=1)
        if weights is not None:
            losses *= weights[:, 0]
        loss = tf.reduce_mean(losses)
    with tf.name_scope("metrics"):
        # For a mixed image, the class with the larger share counts as the true one.
        is_right = tf.equal(tf.argmax(logits, axis=1), tf.argmax(targets, axis=1))
        accuracy = tf.reduce_mean(tf.cast(is_right, tf.float32))
    with tf.name_scope("schedule"):
        learning_rate = training.plateau_factor * schedules.learning_rate(
            tf.cast(step, tf.float32), training.plan, ops=tf
        )
    is_decayed = runtime.can_decay_slots and optimizers.can_decay_slots(config.optim)
    optimizer = _make_optimizer(learning_rate, config, training, is_decayed)
    scaled = runtime.wrap_optimizer(optimizer, config.precision)
    train_op, norm = _update(scaled.optimizer, loss, config, not is_decayed)
    # The step is read after the update, so that hooks need no second session.run, which
    # takes about as long as a training step on an NPU.
    with tf.control_dependencies([train_op]):
        next_step = step.read_value()
    scalars = (loss, accuracy, learning_rate, norm, scaled.scale, scaled.num_skipped)
    tensors = StepTensors(next_step, *scalars)
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.TRAIN,
        # Estimator adds a NanTensorHook, which would end a run although loss scaling
        # skips the overflowed step.  FiniteGuard checks the true loss instead.  The
        # comparison is False for NaN as well.
        loss=tf.where(loss < np.inf, loss, tf.zeros_like(loss)),
        train_op=train_op,
        training_hooks=runtime.start_hooks() + training.make_hooks(tensors),
        scaffold=_first_scaffold(training),
    )


def _update(
    optimizer: tf.train.Optimizer, loss: tf.Tensor, config: Config, is_decay_added: bool
) -> Tuple[tf.Operation, tf.Tensor]:
    """Return the operation of a training step, and the norm of its gradients."""
    gradients = optimizer.compute_gradients(loss, var_list=_trained_variables(config))
    with tf.name_scope("optimizer") as scope:
        gradients, norm = optimizers.clip_gradients(
            gradients, config.optim.gradient_clip_norm
        )
        if is_decay_added:
            gradients = optimizers.decay_weights(gradients, config.optim.weight_decay)
    step = tf.train.get_or_create_global_step()
    # Batch normalisation updates its statistics here; AlexNet has no such updates.
    with tf.control_dependencies(_unfrozen_updates(config)):
        # The optimizer creates its slots before it enters the scope of this name.
        return optimizer.apply_gradients(gradients, step, name=scope), norm


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
    """Return the weights that are not frozen."""
    frozen = _frozen_layers(config)
    return [v for v in tf.trainable_variables() if layer_of(v) not in frozen]


def _unfrozen_updates(config: Config) -> List[tf.Operation]:
    """Return the updates of variables without gradients, except for frozen layers."""
    frozen = _frozen_layers(config)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    return [op for op in updates if op.name.split("/")[1] not in frozen]


def _first_scaffold(training: Training) -> Optional[tf.train.Scaffold]:
    """Return a scaffold that sets the initial values; None for Estimator's default."""
    if training.checkpoint is None and training.read_weights is not None:
        return warm_start.initializing_scaffold(training.read_weights)
    return restore.restoring_scaffold(training.checkpoint)
