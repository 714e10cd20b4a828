"""Parameter servers: workers learn at their own pace from shared weights.

The heir of Downpour SGD. The weights lie on the servers. A worker reads them,
takes a gradient on a batch of its own and sends it; nobody waits for anybody,
so a slow worker holds up no other and a lost one is missed by none. What that
costs: a gradient may be of weights that have moved since, two steps at once
may overwrite one another's change of a moving average, and no two runs are
alike to the bit.

Reference:
    Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012, section
    4.1; Karpathy et al., CVPR 2014, section 3.3: 10 to 50 replicas of the
    network, each split into 4 to 32 partitions. Here a variable is never
    split: those of Keras cannot be.
"""

import collections
import contextlib
import os
import queue
import re
import sys
import threading
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_videofusion.training.cluster import (
    answers,
    BEAT,
    ClusterError,
    expect_answers,
    GRACE,
    read_cluster,
)
from keras_videofusion.training.course import Course
from keras_videofusion.training.devices import Devices

# Seconds without the chief after which a worker or a server gives up, and
# without a server after which the chief does.
ALONE = 60
LOST = 9
# Steps that are under way at a time, for every worker: one is worked on, one
# waits. So a new learning rate is late by so many steps.
AHEAD = 2
# The name under which TensorFlow keeps the first Python function that a
# process gives it. A worker or a server gives it one alone, before it serves.
FIRST = "pyfunc_0"


class Servers(Devices):
    """`tf.distribute.ParameterServerStrategy`, as `TF_CONFIG` says.

    The chief drives: it makes the variables, each whole on the server that
    holds least, hands out the steps, tells the callbacks, validates and
    writes the run's folder. Workers and servers `serve` until it is done.

    Raises:
        ClusterError: If `TF_CONFIG` is wrong or a process does not come.
    """

    watches = False

    def __init__(self):
        self.cluster = read_cluster("parameter-server")
        self.chief = self.cluster.job == "chief"
        self.serves = not self.chief
        if self.serves:
            return
        # The coordinator's own account of every lost worker is pages long.
        tf.get_logger().setLevel("CRITICAL")
        expect_answers(self.cluster.named("ps") + self.cluster.named("worker"))
        self.strategy = tf.distribute.ParameterServerStrategy(
            tf.distribute.cluster_resolver.TFConfigClusterResolver()
        )
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(
            self.strategy
        )
        _wait_for_some(self.coordinator, self.cluster.jobs["worker"])
        # Bytes that each server holds.
        self.loads = [0] * len(self.cluster.jobs["ps"])
        self.loss = None
        self.left = threading.Event()
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    # A worker or a server.

    def serve(self):
        """Serves until the chief is done.

        Raises:
            ClusterError: If the chief has failed, or is gone for a minute.
        """
        told: queue.Queue[str] = queue.Queue()

        def hear(line):
            told.put(line.decode())
            return np.int64(0)

        with tf.Graph().as_default() as graph:
            tf.numpy_function(hear, [tf.constant("")], tf.int64)
        cluster = self.cluster
        address = cluster.jobs[cluster.job][cluster.index]
        config = tf.compat.v1.ConfigProto(
            # Steps wait on some of them; were these all, for ever.
            inter_op_parallelism_threads=max(
                4, len(cluster.jobs["worker"]) + 1, os.cpu_count() or 1
            ),
            intra_op_parallelism_threads=(
                tf.config.threading.get_intra_op_parallelism_threads()
            ),
            device_count={"GPU": 0} if cluster.job == "ps" else {},
        )
        config.gpu_options.allow_growth = True
        try:
            server = tf.distribute.Server(
                tf.train.ClusterSpec(dict(cluster.jobs)),
                job_name=cluster.job,
                task_index=cluster.index,
                protocol="grpc",
                config=config,
            )
        except tf.errors.OpError as error:
            raise ClusterError(
                f"cannot listen at {address}, this process's own address in "
                f"`TF_CONFIG`: {error.message}"
            ) from error
        line = self._heard(told)
        # The chief waits for the function's answer.
        time.sleep(1)
        del server, graph
        if line:
            raise ClusterError(line)

    def _heard(self, told):
        """The chief's last word: empty if all is done, or what failed."""
        ((name, address),) = self.cluster.named("chief")
        met, seen = False, time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                return told.get(timeout=BEAT)
            if answers(address):
                met, seen = True, time.monotonic()
            elif time.monotonic() - seen > ALONE:
                return (
                    f"{'lost' if met else 'missing'}: the {name} at "
                    f"{address}, for {ALONE} seconds. Start the same command "
                    "on all machines, with --resume to go on from the last "
                    "checkpoint"
                )

    # The chief.

    @contextlib.contextmanager
    def scope(self):
        """The context in which variables are made on the servers."""

        def place(make, **kwargs):
            least = int(np.argmin(self.loads))
            with tf.device(f"/job:ps/task:{least}/device:CPU:0"):
                variable = make(**kwargs)
            self.loads[least] += (
                variable.shape.num_elements() * variable.dtype.size
            )
            return variable

        # The outer of two creators has the last word.
        with tf.variable_creator_scope(place), self.strategy.scope():
            yield

    def expect(self, recipe, feed):
        if recipe.deterministic:
            raise ValueError(
                "workers that do not wait for one another repeat nothing to "
                "the bit. Received: deterministic=True with "
                "strategy='parameter-server'"
            )
        count = len(self.cluster.jobs["worker"])
        for index in range(count):
            _from_there(feed, 0, 0, (index, count))

    def trainable(self, model):
        return Served(model.input, model.output, name=model.name)

    def fit(self, model, feed, checked, **arguments):
        """Trains; arguments and callbacks as for `course.fit`.

        Batch n begins when the n-th step is handed out and ends when n + 1
        steps have come back, whichever they are; up to `AHEAD` steps of every
        worker lie between. A worker reads its own part of the shards, from
        where its share of the steps that are done has brought it. The chief
        validates, on a copy of the network.

        Args:
            model: Compiled `Served`.
            feed: As for `Devices.fit`; it must give data that TensorFlow
                reads by itself.
            checked: As for `Devices.fit`.
            **arguments: `epochs`, `steps`, `begun`, `callbacks`, `verbose`.

        Raises:
            ClusterError: If a server is lost.
        """
        try:
            self._train(model, feed, checked, **arguments)
        except BaseException as error:
            line = self.explain(error) or str(error) or type(error).__name__
            self.close(f"the chief has ended: {line}")
            raise
        self.close()

    def _train(
        self, model, feed, checked, epochs, steps, begun, callbacks, verbose=0
    ):
        callbacks = Course(callbacks, model, epochs, steps, verbose)
        check = checked and Validation(model, checked(), callbacks)
        with Flight(self, model, feed, begun) as flight:
            callbacks.on_train_begin()
            epoch, step = begun
            while epoch < epochs and not model.stop_training:
                model.reset_metrics()
                callbacks.on_epoch_begin(epoch)
                flight.done = epoch * steps + step
                logs = flight.fly(callbacks, step, steps)
                if check:
                    logs = {**logs, **check()}
                callbacks.on_epoch_end(epoch, logs)
                epoch, step = epoch + 1, 0
            callbacks.finish()

    def close(self, line=""):
        """Lets workers and servers go.

        Args:
            line: String, what failed; they end with it.
        """
        if self.left.is_set():
            return
        self.left.set()

        def tell():
            for job in ("worker", "ps"):
                for index, address in enumerate(self.cluster.jobs[job]):
                    if not answers(address):
                        continue
                    device = f"/job:{job}/task:{index}/device:CPU:0"
                    with (
                        contextlib.suppress(tf.errors.OpError),
                        tf.device(device),
                    ):
                        tf.raw_ops.PyFunc(
                            input=[tf.constant(line)],
                            token=FIRST,
                            Tout=[tf.int64],
                        )

        # Of one that hangs no answer comes.
        last = threading.Thread(target=tell, daemon=True)
        last.start()
        last.join(GRACE)

    def explain(self, error):
        if self.loss:
            return self.loss
        if not isinstance(error, tf.errors.OpError):
            return None
        named = re.search("/job:ps/replica:0/task:([0-9]+)", str(error))
        servers = self.cluster.named("ps")
        for server in servers:
            if not answers(server[1]):
                return _lost(*server)
        # One that has come back has lost its variables all the same.
        return _lost(*servers[int(named.group(1))]) if named else None

    def check(self):
        """Raises what became of a lost server.

        Raises:
            ClusterError: If one is lost.
        """
        if self.loss:
            raise ClusterError(self.loss)

    def _watch(self):
        """What the thread does: ends a work that hangs, tells of workers."""
        silent: dict[str, float] = {}
        workers = self.cluster.named("worker")
        while not self.left.wait(BEAT) and self.loss is None:
            now = time.monotonic()
            for name, address in self.cluster.named("ps") + workers:
                here = answers(address)
                since = silent.get(name)
                if here:
                    silent.pop(name, None)
                elif since is None:
                    silent[name] = now
                if (name, address) not in workers:
                    if since and not here and now - since >= LOST:
                        self.loss = _lost(name, address)
                elif here and since:
                    _note(f"{name} at {address} is back")
                elif not here and since is None:
                    left = sum(pair[0] not in silent for pair in workers)
                    _note(
                        f"lost {name} at {address}; "
                        + (
                            f"{left} of {len(workers)} workers go on"
                            if left
                            else "training waits until a worker is back"
                        )
                    )
        if self.loss and not self.left.wait(GRACE):
            _note(self.loss)
            os._exit(1)


class Served(keras.Model):
    """A network whose variables lie on servers, where workers change them.

    It shares its layers, and the places in a weights file, with the network
    that it is made of.
    """

    flight = None

    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)
        rule = _rule(self)
        if rule.gradient_accumulation_steps:
            raise ValueError(
                "workers that do not wait for one another cannot accumulate "
                "gradients: pass a larger batch. Received: "
                f"gradient_accumulation_steps={rule.gradient_accumulation_steps}"
            )
        labels = keras.KerasTensor((None, self.output_shape[-1]))
        self._symbolic_build(data_batch=(self.input, labels))

    def get_weights(self):
        self._settle()
        return super().get_weights()

    def save_weights(self, *args, **kwargs):
        self._settle()
        super().save_weights(*args, **kwargs)

    def _settle(self):
        if self.flight is not None:
            self.flight.settle()


class Flight:
    """Steps that are under way, and what comes back from them.

    Args:
        devices: `Servers`.
        model: Compiled `Served`.
        feed: As for `Servers.fit`.
        begun: Pair (epoch, step).

    Attributes:
        done: Integer, steps of the whole run that have come back. What the
            optimizer counts lacks those that were done at the same moment.
    """

    def __init__(self, devices, model, feed, begun):
        self.devices = devices
        self.model = model
        self.done = 0
        self.workers = len(devices.cluster.jobs["worker"])
        self.coordinator = devices.coordinator
        self.batches = self._batches(feed, *begun)
        self.step = tf.function(
            lambda batches: devices.strategy.run(
                learned, (model, next(batches))
            ),
            autograph=False,
        )
        self.add = tf.function(self._added, autograph=False)
        self.under_way = 0
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        self.returned: queue.SimpleQueue = queue.SimpleQueue()
        self.settled: collections.deque = collections.deque()

    def __enter__(self):
        self.model.flight = self
        threading.Thread(
            target=self._collect, name="steps", daemon=True
        ).start()
        return self

    def __exit__(self, *error):
        self.model.flight = None
        self.waiting.put(None)

    def fly(self, callbacks, step, steps):
        """Has an epoch's steps done.

        Args:
            callbacks: `keras.callbacks.CallbackList`.
            step: Integer, the first step.
            steps: Integer, steps of the whole epoch.

        Returns:
            Dict, the logs of the epoch.
        """
        begun, logs = step, {}
        while step < steps:
            while begun < steps and begun - step < AHEAD * self.workers:
                callbacks.on_train_batch_begin(begun)
                self.waiting.put(
                    self.coordinator.schedule(self.step, (self.batches,))
                )
                self.under_way += 1
                begun += 1
            found = self.settled.popleft() if self.settled else self._next()
            self.done += 1
            logs = {
                name: float(value) for name, value in self.add(found).items()
            }
            callbacks.on_train_batch_end(step, logs)
            step += 1
            if self.model.stop_training:
                break
        self.settle()
        return logs

    def settle(self):
        """Waits until no step is under way, so that the state is a whole one.

        What comes back meanwhile is kept, and counts later.
        """
        while self.under_way:
            self.settled.append(self._next())
        _rule(self.model).iterations.assign(self.done + len(self.settled))

    def _next(self):
        """What the next step to come back has to say."""
        while True:
            self.devices.check()
            with contextlib.suppress(queue.Empty):
                found = self.returned.get(timeout=BEAT)
                break
        self.under_way -= 1
        if isinstance(found, BaseException):
            raise found
        return found

    def _added(self, found):
        """Adds to the metrics what a step has gained; what they say then."""
        sums = []
        for variable, value in zip(
            self.model.metrics_variables, found, strict=True
        ):
            sums.append(variable.value + value)
            variable.assign(sums[-1])
        return results(self.model, sums)

    def _collect(self):
        """What the thread does: waits for steps in their order."""
        while (step := self.waiting.get()) is not None:
            self.returned.put(self._result(step))

    def _result(self, step):
        """What a step has to say, or the error that ends the training."""
        while True:
            try:
                return step.get()
            except Exception:
                # That of a lost worker is done again by another.
                try:
                    self.coordinator.done()
                except Exception as error:
                    return error
                time.sleep(0.5)

    def _batches(self, feed, epoch, step):
        """An iterator of each worker's own batches, made where it is."""
        own = [
            _from_there(feed, epoch, step, (index, self.workers))
            for index in range(self.workers)
        ]
        # As text, since a data set cannot be sent.
        graphs = tf.stack([_as_graph(one) for one in own])
        kind = own[0].element_spec

        @tf.function(autograph=False)
        def mine():
            index = (
                tf.distribute.coordinator
            ).experimental_get_current_worker_index()
            return tf.data.experimental.from_variant(
                tf.raw_ops.DatasetFromGraph(graph_def=graphs[index]), kind
            )

        return iter(self.coordinator.create_per_worker_dataset(mine))


class Validation:
    """Scores a data set with a copy of a network, where this process is.

    Args:
        model: Compiled `Served`.
        batches: Finite data set of (clips, labels).
        callbacks: `keras.callbacks.CallbackList`.
    """

    def __init__(self, model, batches, callbacks):
        self.model = model
        # The variables of each layer would be fetched for every batch.
        self.copy = keras.models.clone_model(
            keras.Model(model.input, model.output)
        )
        self.batches = batches
        self.callbacks = callbacks
        self.score = tf.function(
            lambda batch: checked_by(model, self.copy, batch),
            reduce_retracing=True,
            autograph=False,
        )

    def __call__(self):
        """Scores the network as it is now.

        Returns:
            Dict of logs, their names with `val_` before them.
        """
        self.copy.set_weights(self.model.get_weights())
        self.callbacks.on_test_begin()
        sums = [
            np.zeros(v.shape, v.dtype) for v in self.model.metrics_variables
        ]
        logs = {}
        for number, batch in enumerate(self.batches):
            self.callbacks.on_test_batch_begin(number)
            found = self.score(batch)
            sums = [a + b.numpy() for a, b in zip(sums, found, strict=True)]
            logs = results(self.model, sums)
            self.callbacks.on_test_batch_end(number, logs)
        self.callbacks.on_test_end(logs)
        return {f"val_{name}": float(value) for name, value in logs.items()}


def learned(model, batch):
    """One step, on a worker: the variables move.

    Args:
        model: Compiled `Served`.
        batch: (clips, labels).

    Returns:
        As `gained`.
    """
    x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
    with tf.GradientTape() as tape:
        scores = model(x, training=True)
        loss = model.compute_loss(x, y, scores, weight, training=True)
        scaled = model.optimizer.scale_loss(loss)
    variables = model.trainable_variables
    model.optimizer.apply(tape.gradient(scaled, variables), variables)
    return gained(model, loss, x, y, scores, weight)


def checked_by(model, copy, batch):
    """A batch is scored, and nothing moves.

    Args:
        model: Compiled `Served`.
        copy: `keras.Model`, what scores.
        batch: (clips, labels).

    Returns:
        As `gained`.
    """
    x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
    scores = copy(x, training=False)
    loss = model.compute_loss(x, y, scores, weight, training=False)
    return gained(model, loss, x, y, scores, weight)


def gained(model, loss, x, y, scores, weight):
    """What a batch adds to the variables of the metrics.

    These are sums, so whoever gathers them may add in any order; workers
    that updated them in their places would overwrite one another's.

    Args:
        model: Compiled `Served`.
        loss: Scalar tensor.
        x: Clips.
        y: Tensor of shape `(clips, classes)`.
        scores: What the network says of the clips.
        weight: Tensor of shape `(clips,)`, or None.

    Returns:
        List of tensors, one for each of `model.metrics_variables`.
    """
    sums = model.metrics_variables
    nothing = [tf.zeros(v.shape, v.dtype) for v in sums]
    with keras.StatelessScope(zip(sums, nothing, strict=True)) as scope:
        # The first is the mean of the loss.
        model.metrics[0].update_state(loss, sample_weight=tf.shape(y)[0])
        model.compute_metrics(x, y, scores, weight)
    return [scope.get_current_value(v) for v in sums]


def results(model, sums):
    """What the metrics say of sums that are not, or not yet, their own.

    Args:
        model: Compiled `Served`.
        sums: List of tensors, one for each of `model.metrics_variables`.

    Returns:
        Dict of scalar tensors.
    """
    with keras.StatelessScope(zip(model.metrics_variables, sums, strict=True)):
        return model.get_metrics_result()


def _rule(model) -> Any:
    """The optimizer that moves a model's variables, no scaling about it."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def _from_there(feed, epoch, step, worker):
    """The batches of a worker, from where its share of a step brings it."""
    _, count = worker
    if step:
        with contextlib.suppress(ValueError):
            return feed(epoch, step // count, worker=worker, cache=None)
        # A small share of the shards is through by then.
        epoch += 1
    return feed(epoch, 0, worker=worker, cache=None)


def _as_graph(batches):
    """A data set as text, by which another process makes the same.

    Raises:
        ValueError: If it calls Python.
    """
    try:
        return tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(batches),
            external_state_policy=2,  # it must have none
            strip_device_assignment=True,
        )
    except tf.errors.FailedPreconditionError as error:
        # Between the names of TensorFlow's operations stands the reason.
        reason = error.message.split("}}")[-1].split("[Op")[0].strip()
        raise ValueError(
            "workers of parameter servers read shards without Python: from a "
            "disk or from gs://, under the same name on every machine. "
            f"Received: {reason}"
        ) from error


def _wait_for_some(coordinator, addresses):
    """Has lost workers taken up again as they come, one by one.

    TensorFlow's own coordinator takes up none before all are back. Of what
    it is given to join anew, those that are still away are left out here.

    Args:
        coordinator: `ClusterCoordinator`.
        addresses: List of the workers' addresses.
    """
    cluster = coordinator._cluster
    handler = cluster.failure_handler
    every = handler._server_def

    def present(handler):
        while True:
            here = {i for i, place in enumerate(addresses) if answers(place)}
            if any(cluster.workers[i]._is_dead_with_error for i in here):
                break
            time.sleep(1)
        found = type(every)()
        found.CopyFrom(every)
        for job in found.cluster.job:
            if job.name == "worker":
                for index in set(job.tasks) - here:
                    del job.tasks[index]
        return found

    kind = type(handler)
    handler.__class__ = type(
        kind.__name__, (kind,), {"_server_def": property(present)}
    )


def _note(line):
    print(f"videofusion: {line}", file=sys.stderr, flush=True)


def _lost(name, address):
    return (
        f"lost {name} at {address}, and the variables on it. Every checkpoint "
        "is whole: start all processes again with --resume to go on"
    )
