"""What TensorBoard shows of a run: curves, pictures, hyperparameters.

A run's folder of logs holds, as TensorBoard's users know it from Keras,

    train/, validation/      scalars, histograms and pictures
    events.out.tfevents…     the recipe, as text and as hyperparameters
    projector_config.pbtxt   and features*: what the projector shows
    profile/                 traces, if they were asked for
"""

import json
import math
import os
import shutil
import socket
import tempfile
import time
from contextlib import contextmanager
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.summary import session_end_pb
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.util.tensor_util import make_tensor_proto

from keras_videofusion.data.files import (
    is_remote,
    join,
    make_folder,
    write_text,
    written,
)
from keras_videofusion.data.flow import LIMIT
from keras_videofusion.evaluation import pictures
from keras_videofusion.evaluation.metrics import confusion, hit_at_k

# Values of a weight that enter its histogram: a million tell its shape.
SAMPLED = 1_000_000
# Numbers in the projector, which the browser reads whole, and its clips.
PROJECTED = 1_000_000
POINTS = 1_000
# Clips that are shown beside their predictions, and their best classes.
SHOWN, BEST = 8, 3
THUMBNAIL = 64  # pixels
# Classes of which a matrix can still be read.
READABLE = 100


class TensorBoard(keras.callbacks.Callback):
    """Writes a run's logs for TensorBoard.

    After every epoch: what Keras's callback of this name writes, under the
    same names, of whatever the logs hold. From time to time, as `every` and
    `share` say: the first layer's filters, histograms of the weights and, of
    the validation clips, a confusion matrix, a few that play above their
    predictions, and the projector with what the last layer sees of them.

    A run that goes on writes where it stands, and what the process that died
    wrote of later steps is passed over. Training is left as it is: no random
    number is drawn, and what cannot be written or drawn is told in one line.

    Args:
        folder: Path or address of the logs.
        recipe: `Recipe`.
        classes: Names of the classes.
        samples: Finite `tf.data.Dataset` of (clips, labels), or None where
            there is no validation.
        names: Names of the videos that the clips of `samples` are of, one
            for each, in their order; empty if not known.
        families: Dict from a class to its family: of more than 100 classes
            the confusion matrix is one of families.
        every: Integer, epochs from one set of pictures to the next at least.
        share: Float, what pictures may take of the time of training. Those
            of the first epoch and of the last are drawn whatever they take.
        steps_between: Integer, steps from one of the running scores, named
            `batch_…`, to the next; 0: none.
        profile: Pair of integers, the first and the last step of training,
            counted from 1, that are traced; or None.
        chief: Whether this process is the one of several that writes.
        say: Function of one line of text.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        folder,
        recipe,
        classes,
        samples=None,
        *,
        names=(),
        families=None,
        every=1,
        share=0.01,
        steps_between=100,
        profile=None,
        chief=True,
        say=print,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be 1 or more. Received: {every=}")
        if profile is not None and not (
            len(profile) == 2 and 1 <= profile[0] <= profile[1]
        ):
            raise ValueError(
                "`profile` must be the first and the last step to trace, "
                f"counted from 1. Received: {profile=}"
            )
        self.folder = os.fspath(folder)
        self.recipe = recipe
        self.classes = tuple(classes)
        self.samples = samples
        self.names = tuple(names)
        self.families = families or {}
        self.every = every
        self.share = share
        self.steps_between = steps_between
        self.profile = profile or (0, 0)
        self.chief = chief
        self.say = say
        self.told = set()
        self.files = {}

    def on_train_begin(self, logs=None):
        self.begun = time.monotonic()
        self.epoch = self.void = self.network = None
        self.step = 0
        self.drawn: int | None = None
        self.drawing = self.latest = 0.0
        self.tracing = False

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if not self.chief:
            return
        steps = (self.params or {}).get("steps")
        before = self.epoch * steps + batch if steps else self.step
        if self.void is None:
            self.void = before + 1
            self.write_recipe()
        self.step = before + 1
        if self.step == self.profile[0]:
            with self._forgiving():
                tf.profiler.experimental.start(join(self.folder, "profile"))
                self.tracing = True
        if self.tracing:
            self.trace = tf.profiler.experimental.Trace(
                "train", step_num=self.step, _r=1
            )
            self.trace.__enter__()

    def on_train_batch_end(self, batch, logs=None):
        if not self.chief:
            return
        if self.tracing:
            self.trace.__exit__(None, None, None)
            if self.step >= self.profile[1]:
                self._end_profile()
        if self.steps_between and self.step % self.steps_between == 0:
            with self._forgiving():
                for name, value in (logs or {}).items():
                    summary = scalar_pb(f"batch_{name}", float(value))
                    self._write("train", self.step, summary)

    def on_epoch_end(self, epoch, logs=None):
        if not self.chief:
            return
        self.write_scalars(epoch, logs or {})
        seconds = time.monotonic() - self.begun
        if self.drawn is None or (
            epoch - self.drawn >= self.every
            and self.drawing + self.latest <= self.share * seconds
        ):
            self.draw(epoch)

    def on_train_end(self, logs=None):
        if not self.chief or self.epoch is None:
            return
        if self.tracing:
            self._end_profile()
        if self.drawn != self.epoch:
            self.draw(self.epoch)
        with self._forgiving():
            self._write("", 0, session_end_pb(Status.STATUS_SUCCESS))
            self._flush()
        self._close()

    def write_recipe(self):
        """Writes what the run is, for the tabs of text and hyperparameters."""
        fields = self.recipe.to_json()
        rows = "".join(
            f"| {name} | {'' if value is None else value} |\n"
            for name, value in fields.items()
        )
        # Nothing is no number and no word: such fields stay empty.
        values = {
            name: value
            if isinstance(value, bool | int | float | str)
            else json.dumps(value)
            for name, value in fields.items()
            if value is not None
        }
        # The run's folder, in which that of the logs stands, and its own.
        places = self.folder.replace(os.sep, "/").rstrip("/").split("/")
        with self._forgiving():
            self._write(
                "", 0, text_pb("recipe", f"| field | value |\n|-|-|\n{rows}")
            )
            self._write("", 0, hparams_pb(values, "/".join(places[-3:-1])))
            self._flush()

    def write_scalars(self, epoch, logs):
        """Writes an epoch's logs under the names that Keras gives them.

        Args:
            epoch: Integer, counted from 0.
            logs: Dict of numbers.
        """
        found = {name: float(value) for name, value in logs.items()}
        found["learning_rate"] = learning_rate(self.model.optimizer)
        with self._forgiving():
            for name, value in found.items():
                run = "validation" if name.startswith("val_") else "train"
                name = f"epoch_{name.removeprefix('val_')}"
                self._write(run, epoch, scalar_pb(name, value))
            self._flush()

    def draw(self, epoch):
        """Draws all pictures of the network as it is.

        Args:
            epoch: Integer, counted from 0.
        """
        begun = time.monotonic()
        with self._forgiving():
            self._draw_weights(epoch)
            self._flush()
        if self.samples is not None:
            with self._forgiving():
                seen = self._look()
                self._write_projector(seen)
                self._draw_samples(epoch, seen)
                self._flush()
        self.drawn = epoch
        self.latest = time.monotonic() - begun
        self.drawing += self.latest

    def _draw_weights(self, epoch):
        """Histograms of all weights; filters of the first layers."""
        for weight in self.model.weights:
            flat = np.ravel(here(self.model, weight)).astype(np.float32)
            values = flat[:: math.ceil(len(flat) / SAMPLED)]
            values = values[np.isfinite(values)]
            if len(values):
                summary = histogram_pb(f"{weight.path}/histogram", values)
                self._write("train", epoch, summary)
        for stream, kernel in pictures.first_kernels(self.model).items():
            name = f"first_layer/{stream}" if stream else "first_layer"
            figure = pictures.filters({stream or self.model.name: kernel})
            self._write("train", epoch, image(name, [pictures.png(figure)]))

    def _draw_samples(self, epoch, seen):
        """Confusion of all clips, and some with their predictions."""
        truth, scores, classes = seen.truth, seen.scores, self.classes
        share = hit_at_k(truth, scores, 1)
        counts = confusion(truth, scores)
        if len(classes) > READABLE and self.families:
            counts, classes = by_family(counts, classes, self.families)
        figure = pictures.confusion_matrix(
            counts,
            classes,
            f"{len(truth)} clips, Hit@1 {100 * share:.1f} %",
        )
        picture = image("confusion_matrix", [pictures.png(figure)])
        self._write("validation", epoch, picture)
        if not seen.shown:  # vectors are nothing to look at
            return
        drawn = []
        for place, frames in seen.shown:
            best = np.argsort(-scores[place], kind="stable")[:BEST]
            drawn.append(
                pictures.moving_clip(
                    pictures.Sample(
                        frames,
                        [self.classes[i] for i in truth[place].nonzero()[0]],
                        {
                            self.model.name: [
                                (self.classes[i], scores[place, i])
                                for i in best
                            ]
                        },
                    )
                )
            )
        self._write("validation", epoch, image("clips", drawn))

    def _write_projector(self, seen):
        """The files that TensorBoard's projector reads."""
        rows = ["video\ttrue\tpredicted"]
        for place in seen.points:
            true = [self.classes[i] for i in seen.truth[place].nonzero()[0]]
            guess = self.classes[int(np.argmax(seen.scores[place]))]
            known = len(self.names) == len(seen.truth)
            video = self.names[place] if known else f"clip {place + 1}"
            cells = (video, ", ".join(true), guess)
            rows.append("\t".join(" ".join(cell.split()) for cell in cells))
        numbers = [
            "\t".join(f"{value:.5g}" for value in row) for row in seen.features
        ]
        make_folder(self.folder)
        self._write_file("features.tsv", "\n".join(numbers) + "\n")
        self._write_file("features-clips.tsv", "\n".join(rows) + "\n")
        if seen.thumbnails:
            sprite = tf.io.encode_png(sheet(seen.thumbnails)).numpy()
            with written(join(self.folder, "features-frames.png")) as draft:
                draft.write_bytes(sprite)
        self._write_file(
            "projector_config.pbtxt",
            PROJECTOR.format(SPRITE if seen.thumbnails else ""),
        )

    def _write_file(self, name, text):
        write_text(join(self.folder, name), text)

    def _look(self):
        """What the network says of the samples.

        Returns:
            `Seen`.
        """
        if self.network is None:
            self.network = answering(self.model, self.samples)
        truth, scores = [], []
        points: list[int] = []
        features: list[np.ndarray] = []
        thumbnails: list[np.ndarray] = []
        shown: list[tuple[int, np.ndarray]] = []
        spare: list[tuple[int, np.ndarray]] = []
        known: set[bytes] = set()
        stride = math.ceil(max(len(self.names), 1) / POINTS)
        place = 0
        seen_as_frames = not _of_vectors(self.samples)
        for clips, labels, *_ in self.samples:
            answers, middle = self.network(clips)
            answers = answers.numpy()
            # A network that answers in parts is heard as a whole.
            parts = tuple(range(1, answers.ndim - 1))
            scores.append(answers.mean(axis=parts))
            truth.append(labels.numpy() > 0)
            middle = middle.numpy()
            most = min(POINTS, PROJECTED // middle.shape[1])
            for row, label in enumerate(truth[-1]):
                label = label.tobytes()
                if place % stride == 0 and len(points) < most:
                    points.append(place)
                    features.append(middle[row])
                    if seen_as_frames:
                        thumbnails.append(thumbnail(frames(clips, row)))
                # A clip of every class first.
                wanted = shown if label not in known else spare
                if seen_as_frames and len(wanted) < SHOWN:
                    wanted.append((place, frames(clips, row)))
                    known.add(label)
                place += 1
        return Seen(
            np.concatenate(truth),
            np.concatenate(scores),
            points,
            features,
            thumbnails,
            sorted(
                [*shown, *spare][:SHOWN],
                key=lambda sample: sample[0],
            ),
        )

    def _end_profile(self):
        self.tracing = False
        with self._forgiving():
            tf.profiler.experimental.stop()

    @contextmanager
    def _forgiving(self):
        """Lets training go on where what TensorBoard shows cannot be made."""
        try:
            yield
        except ImportError as error:
            self._tell(error)
        except (OSError, tf.errors.OpError) as error:
            self._tell(error)
            # What was being written may be cut in half: on with new files.
            self._close()
            self.void = self.step + 1

    def _tell(self, error):
        reason = str(error).strip().split("\n")[0]
        # Files differ, and what is the matter with them does not.
        kind = reason.rsplit(";")[-1]
        if kind not in self.told:
            self.told.add(kind)
            self.say(f"TensorBoard will not show all: {reason}")

    def _write(self, run, step, summary):
        """Adds a summary to the events file of `train`, `validation` or ""."""
        if run not in self.files:
            folder = join(self.folder, run) if run else self.folder
            self.files[run] = events_file(folder, self.void)
        event = Event(wall_time=time.time(), step=step)
        # Some of TensorBoard's parts speak its own protocol, some TensorFlow's.
        event.summary.ParseFromString(summary.SerializeToString())
        self.files[run].write(event.SerializeToString())

    def _flush(self):
        for file in self.files.values():
            file.flush()

    def _close(self):
        files, self.files = self.files, {}
        for file in files.values():
            try:
                file.close()
            except (OSError, tf.errors.OpError):
                # It was told why when it could not be written.
                continue


class Seen(NamedTuple):
    """What a network said of sample clips.

    Args:
        truth: Boolean array of shape `(clips, classes)`.
        scores: Float array of shape `(clips, classes)`.
        points: List of the clips' numbers that are in the projector.
        features: For each of these, a float array of shape `(channels,)`.
        thumbnails: And a uint8 array of shape `(64, 64, 3)`; of vectors
            none.
        shown: List of (number, uint8 array of shape `(time, height, width,
            3)`): some clips; of vectors none.
    """

    truth: np.ndarray
    scores: np.ndarray
    points: list
    features: list
    thumbnails: list
    shown: list


def events_file(folder, step):
    """Opens a new file of TensorBoard's events in a folder.

    Args:
        folder: Path or address.
        step: Integer: what older files tell from this step on is void.

    Returns:
        `tf.io.TFRecordWriter`, or `Sent`, of serialized `Event`s.
    """
    make_folder(folder)
    # Readers take the files of a folder in the order of their names.
    now = time.time_ns()
    name = (
        f"events.out.tfevents.{now // 10**9:010d}.{now % 10**9:09d}."
        f"{socket.gethostname()}.{os.getpid()}.v2"
    )
    place = join(folder, name)
    file = Sent(place) if is_remote(place) else tf.io.TFRecordWriter(place)
    seconds = now / 10**9
    start = SessionLog(status=SessionLog.START)
    for event in (
        Event(wall_time=seconds, file_version="brain.Event:2"),
        # In the first file too: from the second on, readers obey.
        Event(wall_time=seconds, step=step, session_log=start),
    ):
        file.write(event.SerializeToString())
    return file


class Sent:
    """A file of events at an address, where nothing can be added to a file.

    It grows on this machine, and is sent whole.

    Args:
        place: Address.
    """

    def __init__(self, place):
        self.place = place
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "events")
        self.file = tf.io.TFRecordWriter(self.path)

    def write(self, record):
        self.file.write(record)

    def flush(self):
        self.file.flush()
        with written(self.place) as draft:
            shutil.copyfile(self.path, draft)

    def close(self):
        self.flush()
        self.file.close()
        self.folder.cleanup()


def image(name, encoded):
    """A summary of pictures.

    Args:
        name: String.
        encoded: List of the bytes of PNG or GIF files, of one size.

    Returns:
        `Summary`.
    """
    height, width, _ = tf.io.decode_image(encoded[0]).shape[-3:]
    tensor = make_tensor_proto(
        [str(width).encode(), str(height).encode(), *encoded], dtype=np.object_
    )
    metadata = create_summary_metadata(display_name=None, description="")
    return Summary(
        value=[Summary.Value(tag=name, metadata=metadata, tensor=tensor)]
    )


def learning_rate(optimizer):
    """The rate of the next step.

    Args:
        optimizer: `keras.optimizers.Optimizer`.

    Returns:
        Float.
    """
    # Loss scaling wraps the optimizer whose rate it is.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def by_family(counts, classes, families):
    """A confusion matrix of families.

    Args:
        counts: Float array of shape `(classes, classes)`.
        classes: Names.
        families: Dict from a class to its family; the others are one.

    Returns:
        Counts of shape `(families, families)` and the families' names.
    """
    own = [families.get(name, "other") for name in classes]
    names = sorted(set(own))
    belongs = np.array([[name == of for of in own] for name in names], float)
    return belongs @ counts @ belongs.T, names


def answering(model, samples):
    """A function from clips to scores and to what the last layer sees.

    Args:
        model: `keras.Model`.
        samples: `tf.data.Dataset` of (clips, labels).

    Returns:
        Function from clips to two tensors, of shape `(batch, classes)` or
        `(batch, parts, classes)` and `(batch, channels)`.
    """
    network = keras.Model(model.input, [model.output, features(model)])
    if keras.backend.backend() != "tensorflow":

        def predicted(clips):
            clips = keras.tree.map_structure(np.asarray, clips)
            return map(tf.convert_to_tensor, network.predict_on_batch(clips))

        return predicted
    strategy = model.distribute_strategy

    def answers(clips):
        return [tf.cast(x, "float32") for x in network(clips, training=False)]

    apart = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)

    def asked(clips):
        if not apart:
            return answers(clips)
        # Outside of `run` the other workers would be asked for their copies.
        found = strategy.run(answers, args=(clips,))
        return [strategy.experimental_local_results(x)[0] for x in found]

    spec = samples.element_spec[0]
    return tf.function(asked, input_signature=[spec], autograph=False)


def here(model, weight):
    """A weight as this process holds it.

    Args:
        model: `keras.Model`.
        weight: `keras.Variable` of it.

    Returns:
        NumPy array.
    """
    value = weight.value
    if keras.backend.backend() == "tensorflow":
        # Of several copies the one at hand: to ask the others, they would
        # have to take part.
        strategy = model.distribute_strategy
        (value, *_) = strategy.experimental_local_results(value)
    return keras.ops.convert_to_numpy(value)


def features(model):
    """What the last layer with weights sees, averaged over place and time.

    Args:
        model: `keras.Model`; of two nested ones, what both see.

    Returns:
        Keras tensor of shape `(batch, channels)`.
    """
    towers = [layer for layer in model.layers if hasattr(layer, "layers")]
    if towers:
        return keras.ops.concatenate(
            [
                keras.Model(tower.input, features(tower))(
                    model.input[tower.name.removesuffix("_tower")]
                )
                for tower in towers
            ],
            axis=-1,
        )
    last = [
        layer
        for layer in model.layers
        if getattr(layer, "kernel", None) is not None
    ][-1]
    seen = last.input
    return keras.ops.mean(seen, axis=tuple(range(1, len(seen.shape) - 1)))


def _of_vectors(samples):
    """Whether a data set is of vectors, of which no pictures can be made."""
    spec = samples.element_spec[0]
    return not isinstance(spec, dict) and spec.shape.rank == 2


def frames(clips, row):
    """One clip of a batch, to be looked at.

    Args:
        clips: Tensor of shape `(batch, time, height, width, channels)`, or
            a dict of them.
        row: Integer.

    Returns:
        Uint8 array of shape `(time, height, width, 3)`; of flow alone, x is
        red and y is green.
    """
    if isinstance(clips, dict):
        clips = clips.get("rgb", next(iter(clips.values())))
    clip = clips[row].numpy()
    if clip.shape[-1] == 2:
        # Grey where nothing moves.
        clip = np.pad(clip, ((0, 0),) * 3 + ((0, 1),)) * (127 / LIMIT) + 128
    return np.clip(clip, 0, 255).astype(np.uint8)


def thumbnail(clip):
    """The middle frame of a clip, small.

    Args:
        clip: Uint8 array of shape `(time, height, width, 3)`.

    Returns:
        Uint8 array of shape `(64, 64, 3)`.
    """
    frame = clip[len(clip) // 2]
    rows, columns = (
        np.arange(THUMBNAIL) * length // THUMBNAIL for length in frame.shape[:2]
    )
    return frame[rows][:, columns]


def sheet(thumbnails):
    """Thumbnails in a square, row after row.

    Args:
        thumbnails: List of uint8 arrays of shape `(64, 64, 3)`.

    Returns:
        Uint8 array of shape `(64 n, 64 n, 3)`, black where none is left.
    """
    across = math.ceil(math.sqrt(len(thumbnails)))
    found = np.zeros((across * THUMBNAIL, across * THUMBNAIL, 3), np.uint8)
    for number, picture in enumerate(thumbnails):
        top, left = divmod(number, across)
        top, left = top * THUMBNAIL, left * THUMBNAIL
        found[top : top + THUMBNAIL, left : left + THUMBNAIL] = picture
    return found


PROJECTOR = """\
embeddings {{
  tensor_name: "features"
  tensor_path: "features.tsv"
  metadata_path: "features-clips.tsv"
{}}}
"""
SPRITE = f"""\
  sprite {{
    image_path: "features-frames.png"
    single_image_dim: {THUMBNAIL}
    single_image_dim: {THUMBNAIL}
  }}
"""
