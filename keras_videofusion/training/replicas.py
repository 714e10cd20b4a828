"""A network whose copies share every batch and train as one device would."""

import contextlib
import functools
import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_videofusion.training.callbacks import seeds


class Replicated(keras.Model):
    """A network trained by copies that take parts of every batch.

    It shares its layers, and the places in a weights file, with the network
    that it is made of, so what one strategy saved another reads. Make and
    compile it within the scope of a `tf.distribute` strategy.

    Keras averages the means of the copies' parts, and bounds each copy's own
    gradient. Here every clip counts alike, though the parts of a ragged
    batch differ in size, and what bounds or checks a gradient sees that of
    the whole batch, as on one device. Clips of weight 0 are not there: they
    fill parts that would be empty. What still differs from one device: batch
    normalization takes the statistics of a copy's own part, and the copies
    drop the same units of the first, second, ... clip of their parts.

    `fit` and `evaluate` take what `deal` makes; both are work for all
    processes at once. `predict` takes whole batches and is done by the
    process that calls it, alone.

    Args:
        inputs: The network's `input`.
        outputs: The network's `output`.
        name: The network's name.
    """

    train_function: Any
    test_function: Any

    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)
        rule: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if rule.gradient_accumulation_steps:
            rule._backend_apply_gradients = functools.partial(accumulate, rule)
        # `train_step` has summed them already.
        rule._all_reduce_sum_gradients = list
        labels = keras.KerasTensor((None, self.output_shape[-1]))
        self._symbolic_build(data_batch=(self.input, labels))
        self._alone = functools.cache(
            lambda: keras.Model(self.input, self.output, name=self.name)
        )

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: `compile` has built all that Keras builds here.

        Keras would take a batch from the iterator and average it over the
        copies, which fails when these belong to several processes.
        """

    def train_step(self, data):
        """One copy's part of a step; what the metrics of all copies say."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        copies = tf.distribute.get_replica_context()
        rows, present = counted(y, weight)
        total = summed(present)
        with tf.GradientTape() as tape, self._own_draws(copies):
            scores = self(x, training=True)
            # The mean over `rows`, divided by the number of copies.
            loss = self.compute_loss(x, y, scores, weight, training=True)
            share = rows / total * copies.num_replicas_in_sync
            scaled = self.optimizer.scale_loss(
                loss * tf.cast(share, loss.dtype)
            )
        learned = self.trainable_variables
        found = [
            (gradient, variable)
            for gradient, variable in zip(
                tape.gradient(scaled, learned), learned, strict=True
            )
            if gradient is not None
        ]
        gradients, variables = zip(*found, strict=True)
        averages = self._averages()
        sums = summed(
            [*gradients, *(v.value * (present / total) for v in averages)]
        )
        for variable, value in zip(
            averages, sums[len(gradients) :], strict=True
        ):
            variable.assign(value)
        self.optimizer.apply(sums[: len(gradients)], variables)
        return self._count(loss, rows, present, y, scores, weight)

    def test_step(self, data):
        """One copy's part of a batch that is scored; the metrics of all."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        scores = self(x, training=False)
        loss = self.compute_loss(x, y, scores, weight, training=False)
        rows, present = counted(y, weight)
        return self._count(loss, rows, present, y, scores, weight)

    def _averages(self):
        """The moving averages that this step has changed."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return []
        return [
            average
            for layer in self._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
            and layer.trainable
            for average in (layer.moving_mean, layer.moving_variance)
        ]

    @contextlib.contextmanager
    def _own_draws(self, copies):
        """Lets every copy draw for itself; the first as one device would."""
        if copies.num_replicas_in_sync == 1:
            yield
            return
        states = seeds(self)
        own = tf.stack([copies.replica_id_in_sync_group, 0])
        for state in states:
            state.assign_add(tf.cast(own, state.dtype))
        yield
        for state in states:
            state.assign_sub(tf.cast(own, state.dtype))

    def _count(self, loss, rows, present, y, scores, weight):
        """Adds a part to the metrics; returns those of all parts so far."""
        copies = tf.distribute.get_replica_context()
        for metric in self.metrics:
            if metric.name == "loss":
                # Rows of weight 0 add nothing to the mean over all rows.
                mean = tf.cast(loss, tf.float32) * copies.num_replicas_in_sync
                metric.update_state(
                    tf.math.divide_no_nan(mean * rows, present),
                    sample_weight=present,
                )
        if weight is not None:
            here = weight != 0
            y, scores, weight = (
                tf.boolean_mask(values, here) for values in (y, scores, weight)
            )
        logs = self.compute_metrics(None, y, scores, weight)
        if copies.num_replicas_in_sync == 1:
            return logs
        # In one message, as each has a price of its own.
        kept = [metric.variables for metric in self.metrics]
        flat = tf.concat(
            [tf.reshape(v.value, [-1]) for held in kept for v in held], 0
        )
        flat = summed(flat)
        for metric, held in zip(self.metrics, kept, strict=True):
            sizes = [v.shape.num_elements() for v in held]
            parts = tf.split(flat, [*sizes, flat.shape[0] - sum(sizes)])
            flat = parts.pop()
            result = metric.stateless_result(
                [
                    tf.reshape(p, v.shape)
                    for p, v in zip(parts, held, strict=True)
                ]
            )
            logs.update(
                result if isinstance(result, dict) else {metric.name: result}
            )
        return logs

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            self.train_function = self._function(self.train_step)
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            self.test_function = self._function(self.test_step)
        return self.test_function

    def _function(self, step):
        strategy = self.distribute_strategy

        # Compiled by itself, as Keras does: an iterator cannot be.
        one = tf.function(
            lambda data: strategy.run(step, args=(data,)),
            reduce_retracing=True,
            jit_compile=self.jit_compile,
            autograph=False,
        )

        def function(iterator):
            logs = one(next(iterator))
            return {
                # All copies say the same.
                name: strategy.experimental_local_results(value)[0]
                for name, value in logs.items()
            }

        return tf.function(function, reduce_retracing=True, autograph=False)

    def evaluate(self, *args, **kwargs):
        with warnings.catch_warnings():
            # Of unknown length: Keras takes its end for a lack of data.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            return super().evaluate(*args, **kwargs)

    def predict(self, x, **kwargs):
        return self._alone().predict(x, **kwargs)


def summed(values):
    """Sums over all copies, on every copy.

    Args:
        values: Tensor or list of tensors, a copy's own.

    Returns:
        The same of the sums.
    """
    copies = tf.distribute.get_replica_context()
    if copies.num_replicas_in_sync == 1:
        # Even alone it would copy them.
        return values
    return copies.all_reduce(tf.distribute.ReduceOp.SUM, values)


def accumulate(rule, gradients, variables):
    """Adds up gradients, and takes a step of their mean when it is due.

    As Keras does, but for the condition: copies cannot meet under one of
    their own, so it stands outside of them.

    Args:
        rule: `keras.optimizers.Optimizer` that accumulates.
        gradients: List of tensors, the same on all copies.
        variables: List of `keras.Variable`.
    """
    count = rule.gradient_accumulation_steps
    sums = [
        rule._accumulated_gradients[rule._get_variable_index(v)]
        for v in variables
    ]

    def step(gradients):
        means = [
            (g + held.value) / count
            for g, held in zip(gradients, sums, strict=True)
        ]
        means = rule._clip_gradients(means)
        rule._apply_weight_decay(variables)
        rule._backend_update_step(means, variables, rule.learning_rate)
        for held in sums:
            held.assign(tf.zeros_like(held.value))

    def wait(gradients):
        for held, g in zip(sums, gradients, strict=True):
            held.assign(held.value + g)

    def outside(strategy, gradients):
        def every(do):
            strategy.extended.call_for_each_replica(do, (gradients,))

        due = (rule._iterations.value + 1) % count == 0
        tf.cond(due, lambda: every(step), lambda: every(wait))

    tf.distribute.get_replica_context().merge_call(outside, (gradients,))


def counted(y, weight):
    """Rows of a part, and how many of them are there: weight not 0.

    Args:
        y: Tensor of shape `(rows, classes)`.
        weight: Tensor of shape `(rows,)`, or None.

    Returns:
        Pair of float32 scalars.
    """
    rows = tf.cast(tf.shape(y)[0], tf.float32)
    if weight is None:
        return rows, rows
    return rows, tf.cast(tf.math.count_nonzero(weight), tf.float32)


def replicated(model):
    """The network as one whose copies share every batch.

    Args:
        model: `keras.Model` made of layers, within a strategy's scope.

    Returns:
        `Replicated` with the same layers, name and inputs.
    """
    return Replicated(inputs=model.input, outputs=model.output, name=model.name)


def deal(strategy, batches):
    """A data set of a process's batches as one of parts, one for each copy.

    Args:
        strategy: `tf.distribute.Strategy`.
        batches: Data set of (clips, labels) or (clips, labels, weights),
            rows first.

    Returns:
        `tf.distribute.DistributedDataset` of the same, with weights where
        batches are cut: a part that would be empty has a row of weight 0.
    """
    devices = strategy.extended.worker_devices
    count = len(devices)

    def part(number, clips, labels, weights=None):
        rows = tf.shape(labels, tf.int64)[0]
        begin, end = rows * number // count, rows * (number + 1) // count
        if weights is None:
            weights = tf.ones([rows])
        weights = tf.where(begin == end, 0.0, weights)
        end = tf.maximum(end, begin + 1)
        return tf.nest.map_structure(
            lambda values: values[begin:end], (clips, labels, weights)
        )

    parts = batches
    if count > 1:
        parts = batches.flat_map(
            lambda *batch: tf.data.Dataset.range(count).map(
                lambda number: part(number, *batch)
            )
        )
        if batches.cardinality() == tf.data.INFINITE_CARDINALITY:
            # Otherwise copies would ask one another at every step.
            parts = parts.apply(
                tf.data.experimental.assert_cardinality(
                    tf.data.INFINITE_CARDINALITY
                )
            )
    # Graphics cards are sent the next batch early; on a processor that is
    # a copy for nothing.
    early = any("GPU" in device for device in devices)
    return strategy.distribute_datasets_from_function(
        lambda context: parts,
        tf.distribute.InputOptions(experimental_fetch_to_device=early),
    )
