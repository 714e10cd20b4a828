"""How the samples of an epoch lie in batches, whoever reads which of them.

A batch is settled by its epoch and step alone. A run that goes on in the
middle of an epoch, and every one of several machines that share each batch,
finds the same batches there as one machine that reads from the beginning.
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_videofusion.data.clips import each_stream

# What is drawn for a batch, beside what is drawn for its samples.
_SHARES = 5


@dataclass(frozen=True)
class Batches:
    """The batches of epochs of a fixed number of samples.

    Args:
        samples: Integer, samples in an epoch.
        batch: Integer, samples in a batch; the last of an epoch is ragged.
        part: `(index, count)`: of every batch this one of `count` parts, for
            one of several machines. Batches are cut between pairs; a part
            that would be empty holds the batch's first sample, with a weight
            of 0. None: whole batches.
        first: `(epoch, step)` that the first batch has.

    Raises:
        ValueError: If an argument is out of range.
    """

    samples: int
    batch: int
    part: tuple[int, int] | None = None
    first: tuple[int, int] = (0, 0)

    def __post_init__(self):
        if self.batch < 1:
            raise ValueError(
                f"`batch` must be 1 or more. Received: batch={self.batch}"
            )
        index, count = self.part or (0, 1)
        if not 0 <= index < count:
            raise ValueError(
                "`part` must be (index, count) with an index in 0..count-1. "
                f"Received: part={self.part}"
            )
        if not 0 <= self.first[1] < max(1, self.steps):
            raise ValueError(
                f"`first` must be a step of 0..{self.steps - 1}. "
                f"Received: first={self.first}"
            )

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.samples // self.batch)

    def rows(self, step) -> tuple[Any, Any]:
        """Which rows of a batch are of this part: from, and up to before.

        Args:
            step: Integer, or integer tensor.
        """
        left = self.samples - step * self.batch
        if tf.is_tensor(step):
            rows = tf.minimum(left, self.batch)
        else:
            rows = min(left, self.batch)
        index, count = self.part or (0, 1)
        pairs = (rows + 1) // 2
        begin, end = (
            2 * (pairs * index // count),
            2 * (pairs * (index + 1) // count),
        )
        if tf.is_tensor(step):
            return begin, tf.minimum(end, rows)
        return begin, min(end, rows)

    def weight(self, position):
        """The weight of a sample; None: another part's.

        Args:
            position: Int64 tensor, the sample's place in its epoch.

        Returns:
            Float32 tensor: 1.0, of what fills an empty part 0.0, of what
            belongs to other parts -1.0.
        """
        begin, end = self.rows(position // self.batch)
        row = position % self.batch
        fills = (begin == end) & (row == 0)
        mine = (row >= begin) & (row < end)
        return tf.where(mine, 1.0, tf.where(fills, 0.0, -1.0))

    def chosen(self, epoch, samples: tf.data.Dataset) -> tf.data.Dataset:
        """Of an epoch's samples those that are read here.

        Args:
            epoch: Int64 tensor.
            samples: Data set of (epoch, position, ...), all of the epoch's.

        Returns:
            Data set of the same elements.
        """
        begun = tf.where(epoch == self.first[0], self.first[1] * self.batch, 0)
        found = samples.skip(tf.cast(begun, tf.int64))
        if self.part is None:
            return found
        return found.filter(
            lambda epoch, position, *rest: self.weight(position) >= 0
        )

    def gathered(self, samples: tf.data.Dataset) -> tf.data.Dataset:
        """Samples with a first axis of 1 in batches, none of two epochs."""
        sizes = []
        for step in {0, self.steps - 1}:
            begin, end = self.rows(step)
            sizes.append(max(1, end - begin))
        whole, last = sizes[0], sizes[-1]
        pattern = [whole] * (self.steps - 1) + [last]
        begun = self.first[1]
        return samples.rebatch(pattern[begun:] + pattern[:begun])

    def mixed(
        self, batches: tf.data.Dataset, strength: float, seed: int
    ) -> tf.data.Dataset:
        """Mixes the two samples of every pair, clips and labels alike.

        With a share s, drawn for each pair from Beta(strength, strength), a
        pair (a, b) becomes (s a + (1 - s) b, s b + (1 - s) a). RGB stays
        uint8, rounded. A last sample without a partner stays as it is.

        Args:
            batches: Data set of (clips, labels, ...), as `gathered` gives.
            strength: Float, more than 0; 1: all shares are alike likely.
            seed: Integer, 0 or more.

        Returns:
            `tf.data.Dataset` of the same shapes and kinds.

        Reference:
            Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR
            2018, equation 1, whose pairs are drawn at random: here samples
            come shuffled, and neighbours are a random pair.
        """
        steps = self.steps
        before = self.first[0] * steps + self.first[1]

        def mix(number, batch):
            clips, labels, *rest = batch
            rows = tf.shape(labels)[0]
            begin, _ = self.rows(number % steps)
            pairs = (tf.cast(begin, tf.int32) + tf.range(rows)) // 2
            # Of the whole batch, so that every part finds its own shares.
            draws = tf.random.stateless_gamma(
                [2, (self.batch + 1) // 2],
                tf.stack([tf.constant(8 * seed + _SHARES, tf.int64), number]),
                alpha=strength,
            )
            share = draws[0] / tf.maximum(draws[0] + draws[1], 1e-30)
            share = tf.gather(share, pairs)
            other = tf.minimum(
                tf.bitwise.bitwise_xor(tf.range(rows), 1), rows - 1
            )

            def blended(values):
                s = tf.reshape(share, [-1] + [1] * (len(values.shape) - 1))
                own = tf.cast(values, tf.float32)
                found = s * own + (1 - s) * tf.gather(own, other)
                if values.dtype.is_integer:
                    found = tf.round(found)
                return tf.cast(found, values.dtype)

            return each_stream(blended, clips), blended(labels), *rest

        return batches.enumerate(before).map(
            lambda number, batch: mix(number, batch),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
