"""Who trains, on what, and which of several processes does what."""

from contextlib import nullcontext

import keras
import tensorflow as tf

from keras_videofusion.training import course
from keras_videofusion.training.replicas import deal, replicated


class Devices:
    """One process that trains on one device, on any backend of Keras.

    Other strategies override what they do otherwise.

    Attributes:
        chief: Whether this process writes the run's folder and speaks.
        serves: Whether it only serves another, and trains nothing itself.
        watches: Whether who takes a batch is the one that needs it, so that
            its waiting tells something.
        part: `(index, count)`, the part of every batch that it reads; None:
            all of it.
    """

    chief = True
    serves = False
    watches = True
    part: tuple[int, int] | None = None

    def serve(self):
        """Serves until the chief is done, where `serves`."""

    def expect(self, recipe, feed):
        """Refuses what these devices cannot train.

        Args:
            recipe: `Recipe`.
            feed: As for `fit`.

        Raises:
            ValueError: If a setting or the data do not suit.
        """
        feed(0, 0, cache=None)

    def close(self, line=""):
        """Lets other processes go, if they wait for this one.

        Args:
            line: String, what failed; empty if all is done.
        """

    def scope(self):
        """The context in which networks and optimizers are made."""
        return nullcontext()

    def trainable(self, model):
        """The network as these devices train it.

        Args:
            model: `keras.Model`.

        Returns:
            A `keras.Model` of the same layers.
        """
        return model

    def agree(self, value):
        """What the chief says, on every process.

        Args:
            value: Anything that JSON holds; of the chief alone it counts.

        Returns:
            The chief's value.
        """
        return value

    def synchronize(self, model):
        """Gives every process the chief's weights and optimizer.

        Args:
            model: Compiled `keras.Model`.
        """

    def fit(self, model, feed, checked, **arguments):
        """Trains; arguments and callbacks as for `course.fit`.

        Args:
            model: Compiled `keras.Model`.
            feed: Function of (epoch, step) and, by name, `part`, `worker` or
                `cache` of
                `keras_videofusion.data.pipeline.training_clips`, that gives
                the batches from there on.
            checked: Function of `part` that gives an epoch of validation, or
                None.
            **arguments: `epochs`, `steps`, `begun`, `callbacks`, `verbose`.
        """
        course.fit(
            model,
            lambda epoch, step: feed(epoch, step, part=self.part),
            checked and checked(self.part),
            **arguments,
        )

    def explain(self, error):
        """A line for the user if an error came from other processes.

        Args:
            error: Exception.

        Returns:
            String, or None.
        """


class Copies(Devices):
    """Devices that each hold a copy of the network and share every batch.

    Each takes a part of it; their gradients are averaged over the clips.

    Attributes:
        strategy: `tf.distribute.Strategy`.
    """

    watches = False
    strategy: tf.distribute.Strategy

    def scope(self):
        return self.strategy.scope()

    def trainable(self, model):
        return replicated(model)

    def fit(self, model, feed, checked, **arguments):
        course.fit(
            model,
            lambda epoch, step: deal(
                self.strategy, feed(epoch, step, part=self.part)
            ),
            checked and deal(self.strategy, checked(self.part)),
            **arguments,
        )


class Mirrored(Copies):
    """Every graphics card of this machine, or every logical processor."""

    def __init__(self):
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        devices = [
            device.name for device in tf.config.list_logical_devices(kind)
        ]
        # NCCL needs cards; the copies of a processor meet on the processor.
        join = (
            tf.distribute.NcclAllReduce()
            if kind == "GPU" and len(devices) > 1
            else tf.distribute.ReductionToOneDevice()
        )
        self.strategy = tf.distribute.MirroredStrategy(
            devices, cross_device_ops=join
        )


def release(model):
    """Empties a network that is done with, the optimizer's numbers too.

    TensorFlow never forgets a graph whose loss brings a gradient of its own,
    as softmax's cross-entropy does, nor the variables that it has captured:
    a search would keep the weights of every trial in memory until its end.

    Args:
        model: `keras.Model`, compiled; of no use afterwards.
    """
    if keras.backend.backend() != "tensorflow":
        return
    slots = getattr(model.optimizer, "variables", ())
    for variable in (*model.variables, *slots):
        tf.raw_ops.AssignVariableOp(
            resource=variable.value.handle, value=tf.zeros(0, variable.dtype)
        )
