"""Parameter servers: asynchronous training equals what it should equal.

One script holds a whole cluster in one process, and tells facts that the
tests look at; another test starts the real processes and kills some.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
# What one thread does is enough for these sizes, on machines of two cores.
QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",
}

SCRIPT = """
import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf

workers, servers, ports = int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:]
places = [f"localhost:{port}" for port in ports]
jobs = {
    "chief": places[:1],
    "worker": places[1 : 1 + workers],
    "ps": places[1 + workers :],
}
os.environ["TF_CONFIG"] = json.dumps(
    {"cluster": jobs, "task": {"type": "chief", "index": 0}}
)
# All in one process share these threads, and some of them wait.
config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=16)
kept = [
    tf.distribute.Server(
        tf.train.ClusterSpec(jobs), job, index, protocol="grpc", config=config
    )
    for job in ("worker", "ps")
    for index in range(len(jobs[job]))
]

from keras_videofusion.applications import SlowFusion
from keras_videofusion.training import course
from keras_videofusion.training.metrics import HitAtK
from keras_videofusion.training.optimizer import KrizhevskySGD
from keras_videofusion.training.servers import Flight, Served, Servers

STEPS, BATCH = 5, 8
generator = np.random.default_rng(0)
x = generator.normal(size=(STEPS * BATCH, 6)).astype("float32")
y = np.eye(3, dtype="float32")[x[:, :3].argmax(1)]
facts = {}
devices = Servers()


def network(dropout=0.0):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    found = keras.layers.Dense(16, activation="relu")(inputs)
    found = keras.layers.BatchNormalization(momentum=0.9)(found)
    if dropout:
        found = keras.layers.Dropout(dropout)(found)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(found))


def compiled(model, **options):
    model.compile(
        KrizhevskySGD(0.05, global_clipnorm=0.5, **options),
        "categorical_crossentropy",
        metrics=[HitAtK(1)],
    )
    return model


def served(dropout=0.0):
    with devices.scope():
        return compiled(devices.trainable(network(dropout)))


def batches(index=0, count=1):
    found = tf.data.Dataset.from_tensor_slices(
        (x[index::count], y[index::count])
    )
    return found.repeat().batch(BATCH, drop_remainder=True)


def feed(epoch, step, part=None, worker=(0, 1), cache=None):
    return batches(*worker).skip(step)


def checked(part=None):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(7)


class Diary(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.events, self.logs, self.weights = [], [], []

    def on_train_begin(self, logs=None):
        self.events.append("begin")

    def on_train_end(self, logs=None):
        self.events.append("end")

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self.events.append(["<", self.epoch, batch])

    def on_train_batch_end(self, batch, logs=None):
        self.events.append([">", self.epoch, batch])

    def on_test_begin(self, logs=None):
        self.events.append("test")

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append({k: float(v) for k, v in logs.items()})
        self.weights.append([w.tolist() for w in self.model.get_weights()])


def halved(epoch, rate):
    return 0.0 if epoch == 2 else rate * 0.5


def diary(train, model, **arguments):
    found = Diary()
    slower = keras.callbacks.LearningRateScheduler(halved)
    train(model, feed, arguments.pop("checked", None), epochs=3, steps=STEPS,
          callbacks=[slower, found], **arguments)
    return {
        "logs": found.logs, "events": found.events, "weights": found.weights,
        "iterations": int(model.optimizer.iterations),
        "slots": [v.numpy().tolist() for v in model.optimizer.variables[2:]],
    }
"""

ALONE_SCRIPT = """
# Not closed until the last: one cluster serves several trainings.
devices.close, close = (lambda line="": None), devices.close
facts["served"] = diary(devices.fit, served(), begun=(0, 0), checked=checked)
facts["late"] = diary(devices.fit, served(), begun=(1, 2))
plain = diary(
    lambda model, feed, checked, **rest: course.fit(
        model, lambda *begun: feed(*begun), checked(), **rest
    ),
    compiled(network()), begun=(0, 0), checked=checked,
)
facts["plain"] = plain
saved = served()
saved.optimizer.build(saved.trainable_variables)
saved.save_weights(sys.argv[3] + "/served.weights.h5")
other = compiled(network())
other.optimizer.build(other.trainable_variables)
other.load_weights(sys.argv[3] + "/served.weights.h5")
facts["saved"] = [w.tolist() for w in saved.get_weights()]
facts["loaded"] = [w.tolist() for w in other.get_weights()]

wrong = {}
with devices.scope():
    try:
        compiled(devices.trainable(network()), gradient_accumulation_steps=2)
    except ValueError as error:
        wrong["accumulate"] = str(error)


def python(epoch, step, worker=None, cache=None):
    return batches().map(lambda a, b: (tf.ensure_shape(
        tf.numpy_function(lambda v: v, [a], tf.float32), [BATCH, 6]), b))


try:
    devices.fit(saved, python, None, epochs=1, steps=1, begun=(0, 0),
                callbacks=[])
except ValueError as error:
    wrong["python"] = str(error)
facts["wrong"] = wrong
"""

TWO_SCRIPT = """
devices.close, close = (lambda line="": None), devices.close
first = len(devices.loads) * [0]
with devices.scope():
    small = SlowFusion(width=0.1, input_shape=(10, 64, 64, 3), classes=20)
    small = compiled(devices.trainable(small))
every = {id(v): v for v in [*small.variables, *small.optimizer.variables]}
facts["placed"] = [
    [v.path, v.value.device, int(np.prod(v.shape)) * 4]
    for v in every.values()
]
facts["loads"] = devices.loads[:]

# Each worker's own rows are of a class of its own.
rows = np.zeros((40, 6), "float32"), np.repeat(np.eye(3)[:2], 20, axis=0)


def mine(epoch, step, worker=None, cache=None):
    index, count = worker
    found = tf.data.Dataset.from_tensor_slices(
        tuple(v[index * 20 : index * 20 + 20].astype("float32") for v in rows)
    )
    return found.repeat().batch(BATCH)


class Truth(keras.metrics.MeanMetricWrapper):
    def __init__(self):
        super().__init__(lambda true, scores: true[:, 0], "truth")


class Counts(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        facts["truth"] = float(logs["truth"])
        facts["counts"] = [
            float(v) for v in self.model.metrics_variables if "count" in v.path
        ]


with devices.scope():
    model = devices.trainable(network())
    model.compile("sgd", "categorical_crossentropy", metrics=[Truth()])
devices.fit(model, mine, None, epochs=1, steps=60, begun=(0, 0),
            callbacks=[Counts()])
facts["iterations"] = int(model.optimizer.iterations)


class Halt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 7:
            flight = self.model.flight
            facts["flying"] = flight.under_way
            before = self.model.get_weights()
            facts["settled"] = flight.under_way
            after = [w.numpy() for w in self.model.weights]
            facts["still"] = all(map(np.array_equal, before, after))
            self.model.stop_training = True


def own(epoch, step, worker=None, cache=None):
    return batches(*worker)


class Last(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        facts["epochs"] = epoch + 1
        facts["last"] = {k: float(v) for k, v in logs.items()}


devices.fit(served(), own, None, epochs=3, steps=20, begun=(0, 0),
            callbacks=[Halt(), Last()])
facts["halted"] = facts.pop("epochs")
model = served(dropout=0.1)
devices.fit(model, own, checked, epochs=8, steps=20, begun=(0, 0),
            callbacks=[Last()])
"""

END = """
with open(sys.argv[3] + "/facts.json", "w") as file:
    json.dump(facts, file)
# The servers within this process cannot be ended.
os._exit(0)
"""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        doors = [stack.enter_context(socket.socket()) for _ in range(count)]
        for door in doors:
            door.bind(("localhost", 0))
        return [door.getsockname()[1] for door in doors]


def told(script, workers, servers, folder):
    """The facts that a script finds in a cluster within one process."""
    done = subprocess.run(
        [
            sys.executable, "-c", SCRIPT + script + END, str(workers),
            str(servers), str(folder),
            *map(str, free_ports(1 + workers + servers)),
        ],
        cwd=ROOT,
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "facts.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One worker, two servers, and the same without them."""
    return told(ALONE_SCRIPT, 1, 2, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two workers and three servers."""
    return told(TWO_SCRIPT, 2, 3, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("epoch", range(3))
def test_one_worker_takes_the_steps_of_plain_training(alone, epoch):
    for found, expected in zip(
        alone["served"]["weights"][epoch],
        alone["plain"]["weights"][epoch],
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_momentum_lies_on_the_servers_too(alone):
    assert len(alone["served"]["slots"]) == 6
    for found, expected in zip(
        alone["served"]["slots"], alone["plain"]["slots"], strict=True
    ):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_logs_are_those_of_plain_training(alone):
    for found, expected in zip(
        alone["served"]["logs"], alone["plain"]["logs"], strict=True
    ):
        assert set(found) == set(expected)
        assert "val_hit_at_1" in found
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-4), name


def test_a_rate_that_a_callback_sets_reaches_the_servers(alone):
    # That the weights follow it, the first test of this file tells.
    rates = [logs["learning_rate"] for logs in alone["served"]["logs"]]
    assert rates == pytest.approx([0.025, 0.0125, 0.0])


def test_callbacks_see_one_training_with_a_step_ahead(alone):
    events = alone["served"]["events"]
    assert events[0] == "begin"
    assert events[-1] == "end"
    first = events[1 : events.index("test")]
    assert [e for e in first if e[0] == "<"] == [["<", 0, n] for n in range(5)]
    assert [e for e in first if e[0] == ">"] == [[">", 0, n] for n in range(5)]
    assert first[:3] == [["<", 0, 0], ["<", 0, 1], [">", 0, 0]]


def test_a_run_goes_on_in_the_middle_of_an_epoch(alone):
    ended = [e[1:] for e in alone["late"]["events"] if e[0] == ">"]
    assert ended == [[1, 2], [1, 3], [1, 4], *([2, n] for n in range(5))]
    assert alone["late"]["iterations"] == 15


def test_weights_files_serve_other_strategies(alone):
    for found, expected in zip(alone["loaded"], alone["saved"], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_workers_cannot_do_is_refused(alone):
    assert (
        "Received: gradient_accumulation_steps=2"
        in (alone["wrong"]["accumulate"])
    )
    assert "read shards without Python" in alone["wrong"]["python"]


def test_every_variable_lies_whole_where_least_lay(two):
    loads = [0, 0, 0]
    for name, device, size in two["placed"]:
        assert device.startswith("/job:ps/"), name
        loads[int(device.split("task:")[1].split("/")[0])] += size
    largest = max(size for _, _, size in two["placed"])
    assert max(loads) - min(loads) <= largest
    # No server could take what another's last variable is, and hold less.
    assert all(loads)


def test_workers_read_their_own_parts_and_no_count_is_lost(two):
    assert two["counts"] == [60 * 8, 60 * 8]
    assert 0 < two["truth"] < 1
    # Whole batches are of one class: a step is one worker's.
    assert two["truth"] * 60 == pytest.approx(round(two["truth"] * 60))


def test_the_optimizer_counts_the_steps_that_were_done(two):
    assert two["iterations"] == 60


def test_weights_are_read_while_no_step_is_under_way(two):
    assert two["flying"] > 0
    assert two["settled"] == 0
    assert two["still"]
    assert two["halted"] == 1


def test_workers_that_do_not_wait_learn(two):
    assert two["epochs"] == 8
    assert two["last"]["val_hit_at_1"] >= 0.9
    assert two["last"]["hit_at_1"] >= 0.7


def test_a_worker_gives_up_when_the_chief_is_gone(monkeypatch):
    from keras_videofusion.training import servers
    from keras_videofusion.training.cluster import ClusterError

    monkeypatch.setattr(servers, "ALONE", 1.0)
    monkeypatch.setattr(servers, "BEAT", 0.2)
    with socket.create_server(("localhost", 0)) as door:
        (port, own) = (door.getsockname()[1], free_ports(1)[0])
        jobs = {
            "chief": [f"localhost:{port}"],
            "worker": [f"localhost:{own}"],
            "ps": ["localhost:1"],
        }
        monkeypatch.setenv(
            "TF_CONFIG",
            json.dumps(
                {"cluster": jobs, "task": {"type": "worker", "index": 0}}
            ),
        )
        served = servers.Servers()
        threading.Timer(2.0, door.close).start()
        begun = time.monotonic()
        assert served._heard(queue.Queue()).startswith("lost: the chief 0 at ")
        assert time.monotonic() - begun > 2.0
    with pytest.raises(ClusterError, match=r"^missing: the chief 0 at local"):
        raise ClusterError(served._heard(queue.Queue()))


# The real processes.


class Processes:
    """A cluster of `videofusion train` on this machine."""

    def __init__(self, call, folder):
        self.call = call
        self.folder = folder
        self.ports = free_ports(5)
        place = [f"localhost:{port}" for port in self.ports]
        self.jobs = {
            "chief": place[:1], "worker": place[1:3], "ps": place[3:],
        }  # fmt: skip
        self.running = {}
        self.count = 0

    def start(self, job, index, *flags):
        self.count += 1
        config = {"cluster": self.jobs, "task": {"type": job, "index": index}}
        log = self.folder / f"{job}-{index}-{self.count}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*self.call, *flags],
                cwd=ROOT,
                env=os.environ | QUIET | {"TF_CONFIG": json.dumps(config)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        process.log = log
        self.running[job, index] = process
        return process

    def start_all(self, *flags):
        for job, places in self.jobs.items():
            for index in range(len(places)):
                self.start(job, index, *flags)

    def kill(self, job, index):
        process = self.running.pop((job, index))
        process.send_signal(signal.SIGKILL)
        process.wait()

    def ends(self, seconds=90):
        """Status and last line of every process that was left."""
        return {
            name: (
                process.wait(seconds),
                (process.log.read_text().splitlines() or [""])[-1],
            )
            for name, process in self.running.items()
        }

    def close(self):
        for process in self.running.values():
            process.kill()
            process.wait()


def awaited(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def prepared(shapes_folder, tmp_path_factory):
    from keras_videofusion.data.catalog import open_catalog
    from keras_videofusion.data.prepare import prepare
    from keras_videofusion.training.build import clip_of
    from keras_videofusion.training.recipe import Recipe

    folder = tmp_path_factory.mktemp("prepared") / "shards"
    spec = clip_of(Recipe(model="early_fusion", size=32))
    prepare(open_catalog(shapes_folder), folder, spec, clips=4)
    return folder


def test_lost_processes_are_borne_or_told(prepared, tmp_path):
    run = tmp_path / "run"
    cluster = Processes(
        [
            sys.executable, "-m", "videofusion", "train", str(prepared),
            "--model", "early_fusion", "--size", "32", "--width", "0.02",
            "--batch", "4", "--strategy", "parameter-server", "--run",
            str(run), "--checkpoint-steps", "3", "--plateau-patience", "0",
        ],
        tmp_path,
    )  # fmt: skip

    def epochs():
        history = run / "history.csv"
        return len(history.read_text().splitlines()) if history.exists() else 0

    def goes_on():
        before = epochs()
        awaited(lambda: epochs() > before + 2)

    try:
        cluster.start_all("--epochs", "10000")
        awaited(lambda: epochs() > 2)
        # A worker is lost: the other goes on.
        cluster.kill("worker", 0)
        goes_on()
        # Every worker is lost; one that comes resumes the training.
        cluster.kill("worker", 1)
        time.sleep(3)
        before = epochs()
        time.sleep(2)
        assert epochs() == before
        cluster.start("worker", 1)
        goes_on()
        # So does the other.
        chief = cluster.running["chief", 0].log
        cluster.start("worker", 0)
        awaited(lambda: " worker 0 at" in chief.read_text().split(" back")[-2])
        cluster.kill("worker", 1)
        goes_on()
        # A server is lost: all end, with a line that says so.
        cluster.kill("ps", 1)
        place = cluster.jobs["ps"][1]
        ends = cluster.ends()
        line = f"lost ps 1 at {place}, and the variables on it. Every"
        for name, (status, last) in ends.items():
            assert status == 1, (name, last)
            assert line in last, name
        assert ends["chief", 0][1].startswith(f"videofusion: {line}")
        # All together go on from the last checkpoint, and end by themselves.
        state = max((run / "checkpoints").glob("*.json"))
        epoch = json.loads(state.read_text())["epoch"]
        cluster.start_all("--resume", "--epochs", str(epoch + 2))
        for name, (status, last) in cluster.ends().items():
            assert status == 0, (name, last)
        assert epochs() == epoch + 3
    finally:
        cluster.close()
    # Their ports are free again.
    for port in cluster.ports:
        with socket.socket() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(("localhost", port))
