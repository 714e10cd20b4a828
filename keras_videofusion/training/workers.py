"""Processes that train together, each on its part of every batch."""

import tensorflow as tf

from keras_videofusion.training.cluster import (
    ClusterError,
    Peers,
    read_cluster,
)
from keras_videofusion.training.devices import Copies

# Seconds that a failed step waits for word that a peer was lost.
NEWS = 10


class Workers(Copies):
    """`tf.distribute.MultiWorkerMirroredStrategy`, as `TF_CONFIG` says.

    Every process holds a copy of the network on each of its devices and
    reads its part of every batch; gradients are summed, so all take the step
    that one device would take. The same callbacks see the same logs on all;
    the first process alone writes and speaks. When one is lost all end, and
    go on together from the last checkpoint.

    Raises:
        ClusterError: If `TF_CONFIG` is wrong or a process does not come.
    """

    def __init__(self):
        cluster = read_cluster("multiworker")
        self.peers = Peers(cluster)
        self.part = (cluster.position, len(cluster.trainers))
        self.chief = cluster.position == 0
        try:
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ClusterError(
                self.explain(error)
                or f"the processes could not be joined: {reason}"
            ) from error

    def agree(self, value):
        return self.peers.agree(value)

    def synchronize(self, model):
        """Gives every process the first one's variables.

        Args:
            model: Compiled `Replicated`: its weights, optimizer, random
                states and metrics are sent.
        """
        every = {
            id(variable): variable
            for variable in (
                *model.variables,
                *model.optimizer.variables,
                *(v for metric in model.metrics for v in metric.variables),
            )
        }.values()

        # Numbers of one kind at a time, of kinds that can be summed.
        kinds: dict[str, list] = {"float32": [], "int64": []}
        for variable in every:
            floats = variable.dtype.startswith("float")
            kinds["float32" if floats else "int64"].append(variable)

        def take():
            copies = tf.distribute.get_replica_context()
            first = copies.replica_id_in_sync_group == 0
            for kind, variables in kinds.items():
                values = copies.all_reduce(
                    tf.distribute.ReduceOp.SUM,
                    [
                        tf.where(first, tf.cast(variable.value, kind), 0)
                        for variable in variables
                    ],
                )
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(tf.cast(value, variable.dtype))

        tf.function(lambda: self.strategy.run(take), autograph=False)()

    def fit(self, model, feed, checked, **arguments):
        super().fit(model, feed, checked, **arguments)
        self.peers.finish()

    def explain(self, error):
        """What a lost peer has to do with an error, as one line, or None."""
        if isinstance(error, tf.errors.OpError):
            return self.peers.news(NEWS)
        return None
