"""Which processes train together, whether all are there, and who is lost.

Imports the standard library alone: a wrong `TF_CONFIG` and a missing peer are
told before TensorFlow starts, which waits for its peers without end.
"""

import contextlib
import hashlib
import json
import os
import queue
import selectors
import socket
import sys
import threading
import time
from dataclasses import dataclass

# Seconds: how long all may take to come, how often each gives a sign of
# life, how long none may be heard, and how long the work may take to end
# by itself once a peer is lost. All are over within a minute.
WAIT = 50
BEAT = 3
SILENCE = 30
GRACE = 15
# No message of ours is longer; a stranger's may be endless.
LONGEST = 1 << 24
STANDARD = (
    '{"cluster": {"worker": ["host:port", ...]}, '
    '"task": {"type": "worker", "index": 0}}'
)
# The processes that a strategy must, and may, have. An evaluator is no part
# of a cluster; it is allowed in its description, as TensorFlow allows it.
ROLES = {
    "multiworker": (("worker",), ("chief", "worker", "evaluator")),
    "parameter-server": (
        ("chief", "worker", "ps"),
        ("chief", "worker", "ps", "evaluator"),
    ),
}


class ClusterError(RuntimeError):
    """Processes that cannot train together; one line that says why."""


@dataclass(frozen=True)
class Cluster:
    """What `TF_CONFIG` says: every process, and which of them this one is.

    Args:
        jobs: Dict of a job's name ("chief", "worker", "ps") and the
            addresses of its processes, `host:port`, in the order of their
            indices.
        job: The job of this process.
        index: Its index in the job, from 0.
    """

    jobs: dict[str, tuple[str, ...]]
    job: str
    index: int

    @property
    def trainers(self):
        """The chief, if there is one, and the workers, as TensorFlow counts.

        Returns:
            List of pairs of a name such as "worker 1" and an address.
        """
        return self.named("chief") + self.named("worker")

    @property
    def position(self):
        """Index of this process among the `trainers`, from 0."""
        return self.trainers.index(
            (f"{self.job} {self.index}", self.jobs[self.job][self.index])
        )

    def named(self, job):
        """Pairs of a name and an address for every process of a job."""
        return [
            (f"{job} {index}", address)
            for index, address in enumerate(self.jobs.get(job, ()))
        ]


def read_cluster(strategy, text=None):
    """The cluster that `TF_CONFIG` describes.

    Args:
        strategy: `"multiworker"` or `"parameter-server"`.
        text: String of JSON; the environment's `TF_CONFIG` if not given.

    Returns:
        `Cluster`.

    Raises:
        ClusterError: If there is none, or it cannot serve the strategy.

    Reference:
        https://www.tensorflow.org/guide/distributed_training: `TF_CONFIG`.
    """
    text = os.environ.get("TF_CONFIG") if text is None else text

    def expect(true, rule, received):
        if not true:
            raise ClusterError(
                f"`TF_CONFIG` {rule}. Received: {json.dumps(received)[:200]}"
            )

    if not (text or "").strip():
        raise ClusterError(
            f"strategy {strategy} needs the environment's `TF_CONFIG` to say "
            "which processes train together and which of them this one is, "
            f"as {STANDARD}. Received: TF_CONFIG={text!r}"
        )
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ClusterError(
            f"`TF_CONFIG` must be JSON, as {STANDARD}: {error}. "
            f"Received: {text[:200]}"
        ) from None
    form = f"must be of the form {STANDARD}"
    expect(isinstance(config, dict), form, config)
    jobs, task = config.get("cluster"), config.get("task")
    expect(isinstance(jobs, dict) and isinstance(task, dict), form, config)
    needed, known = ROLES[strategy]
    for job, addresses in jobs.items():
        expect(
            job in known,
            f"of strategy {strategy} may name the jobs {', '.join(known)}",
            list(jobs),
        )
        expect(
            isinstance(addresses, list) and all(map(_is_address, addresses)),
            f"must give '{job}' a list of addresses, each a host and a port "
            "such as 10.0.0.1:2222",
            addresses,
        )
    for job in needed:
        expect(
            jobs.get(job),
            f"of strategy {strategy} must name one process or more of the "
            f"job '{job}'",
            jobs,
        )
    expect(
        len(jobs.get("chief", ())) <= 1,
        "must name one chief",
        jobs.get("chief"),
    )
    every = [address for job in jobs.values() for address in job]
    expect(
        len(set(every)) == len(every),
        "must give every process an address of its own",
        every,
    )
    job, index = task.get("type"), task.get("index")
    trained = [job for job in jobs if job != "evaluator"]
    expect(
        job in trained,
        f"must have a task type of the cluster: {' or '.join(trained)}",
        task,
    )
    expect(
        isinstance(index, int)
        and not isinstance(index, bool)
        and 0 <= index < len(jobs[job]),
        f"must have a task index from 0 to {len(jobs[job]) - 1}, as there "
        f"are {len(jobs[job])} of '{job}'",
        task,
    )
    return Cluster({job: tuple(jobs[job]) for job in trained}, job, index)


def _is_address(text):
    if not isinstance(text, str):
        return False
    host, colon, port = text.rpartition(":")
    return bool(
        host
        and colon
        and port.isdecimal()
        and port.isascii()
        and 0 < int(port) < 65536
        and not set(host) & set("/ \t\n")
    )


def split_address(address):
    """Host and port of `host:port`; an IPv6 host stands in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def answers(address, seconds=2.0):
    """Whether something listens at an address, `host:port`."""
    try:
        socket.create_connection(split_address(address), seconds).close()
    except OSError:
        return False
    return True


def expect_answers(named, seconds=WAIT):
    """Waits until something listens at every address.

    Args:
        named: Pairs of a name such as "ps 0" and an address, `host:port`.
        seconds: Float, how long they may take to come.

    Raises:
        ClusterError: If one does not answer by then.
    """
    end = time.monotonic() + seconds
    absent = list(named)
    while True:
        absent = [pair for pair in absent if not answers(pair[1])]
        if not absent:
            return
        if time.monotonic() > end:
            raise ClusterError(_missing(absent, seconds))
        time.sleep(0.5)


def _missing(absent, seconds):
    told = ", ".join(f"{name} at {address}" for name, address in absent)
    return (
        f"missing after {seconds:.0f} seconds: {told}. Start the same command "
        "there, with its own task in TF_CONFIG, and see that the port can be "
        "reached"
    )


def _lost(name, address):
    return (
        f"lost {name} at {address}. Every checkpoint is whole: start all "
        "processes again with --resume to go on"
    )


class Peers:
    """The processes of a cluster, met before they train, watched until done.

    The first of `trainers` listens at its own address until all others have
    come, and hands the port on to TensorFlow; the connections stay. Along
    them each gives a sign of life, and a process that dies closes its own.
    So a loss is known at once, and that of a whole machine in half a minute.
    When the work does not end by itself upon a loss (TensorFlow may wait
    without end), the process ends: a line on standard error, status 1.

    Args:
        cluster: `Cluster`.
        seconds: Float, how long all may take to come; `WAIT` if not given.

    Raises:
        ClusterError: If one does not come.
    """

    def __init__(self, cluster, seconds=None):
        seconds = WAIT if seconds is None else seconds
        self.trainers = cluster.trainers
        self.position = cluster.position
        # A process of another cluster, or of an older start, is no peer.
        self.sign = hashlib.sha256(repr(self.trainers).encode()).hexdigest()
        self.loss = None
        self.left = threading.Event()
        self.told: queue.Queue = queue.Queue()
        self.done: set[int] = set()
        self.writing = threading.Lock()
        if self.position:
            # TensorFlow will listen there; its error would say less.
            _listen(self.trainers[self.position][1]).close()
            self.lines = {0: self._join(seconds)}
        else:
            self.lines = self._gather(seconds)
        if self.lines:
            threading.Thread(
                target=self._watch, name="peers", daemon=True
            ).start()

    def agree(self, value):
        """The first process's value, on every process.

        Args:
            value: What JSON can hold; that of other processes is ignored.

        Returns:
            The first process's `value`, as JSON gives it back.

        Raises:
            ClusterError: If a peer is lost.
        """
        value = json.loads(json.dumps(value))
        if not self.position:
            self.check()
            self._tell({"value": value})
            return value
        while True:
            try:
                return self.told.get(timeout=0.2)
            except queue.Empty:
                self.check()

    def check(self):
        """Raises what became of a lost peer.

        Raises:
            ClusterError: If a peer is lost.
        """
        if self.loss:
            self.leave()
            raise ClusterError(self.loss)

    def news(self, seconds):
        """What is known of a loss, waiting for it if need be.

        Args:
            seconds: Float. An operation fails at once when a peer dies;
                word of who it was may come a moment later.

        Returns:
            One line, or None if no peer is lost.
        """
        end = time.monotonic() + seconds
        while self.lines and not self.loss and time.monotonic() < end:
            time.sleep(0.05)
        if self.loss:
            self.leave()
        return self.loss

    def finish(self):
        """Waits for the first process to come here, and ends the watch.

        None goes before the first has written the last of its work.

        Raises:
            ClusterError: If a peer is lost before.
        """
        self.agree(None)
        if self.position:
            self._tell({"done": True})
        # What is still on its way is lost when a process ends.
        end = time.monotonic() + GRACE
        while (
            not self.position
            and len(self.done) < len(self.lines)
            and not self.loss
            and time.monotonic() < end
        ):
            time.sleep(0.02)
        self.leave()

    def leave(self):
        """Ends the watch: whoever goes now is not missed here."""
        self.left.set()

    def _join(self, seconds):
        """The connection to the first process, once it has met all."""
        name, address = self.trainers[0]
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                line = _Line(
                    socket.create_connection(split_address(address), 2.0)
                )
                line.send({"at": self.position, "of": self.sign})
                # It is there, and knows when to give up.
                answer = line.wait(WAIT + 5)
                if answer and answer.get("met"):
                    return line
                line.close()
                if answer and "error" in answer:
                    raise ClusterError(str(answer["error"]))
            if time.monotonic() > end:
                raise ClusterError(_missing([(name, address)], seconds))
            time.sleep(0.2)

    def _gather(self, seconds):
        """The connections to all others, by their positions."""
        if len(self.trainers) == 1:
            return {}
        end = time.monotonic() + seconds
        found: dict[int, _Line] = {}
        with _listen(self.trainers[0][1]) as door:
            fresh: list[_Line] = []
            while len(found) < len(self.trainers) - 1:
                if time.monotonic() > end:
                    absent = [
                        pair
                        for position, pair in enumerate(self.trainers)
                        if position and position not in found
                    ]
                    error = _missing(absent, seconds)
                    for line in (*found.values(), *fresh):
                        line.send({"error": error})
                        line.close()
                    raise ClusterError(error)
                with contextlib.suppress(OSError):
                    fresh.append(_Line(door.accept()[0]))
                for position, line in list(found.items()):
                    # One that has gone again may come again.
                    line.read()
                    if line.closed:
                        del found[position]
                for line in list(fresh):
                    message = line.read()
                    if message is None and not line.closed:
                        continue
                    fresh.remove(line)
                    position = self._welcome(line, message, found)
                    if position:
                        found[position] = line
        for line in fresh:
            line.close()
        for line in found.values():
            line.send({"met": True})
        return found

    def _welcome(self, line, message, found):
        """The position of who has come; None if it is none of ours."""
        position = (message or {}).get("at")
        error = None
        if position not in range(1, len(self.trainers)):
            line.close()
            return None
        if message.get("of") != self.sign:
            error = (
                "`TF_CONFIG` must describe the same cluster on every machine"
                f": that of {self.trainers[0][0]} has other addresses"
            )
        elif position in found:
            error = (
                "`TF_CONFIG` must give every process a task of its own: "
                f"{self.trainers[position][0]} is there already"
            )
        if error is None:
            return position
        line.send({"error": error})
        line.close()
        return None

    def _tell(self, message, but=None):
        with self.writing:
            for position, line in self.lines.items():
                if position != but:
                    line.send(message)

    def _watch(self):
        """What the thread does: beats, listens, and ends a work that hangs."""
        beaten = 0.0
        while not self.left.is_set() and self.loss is None:
            now = time.monotonic()
            if now - beaten > BEAT:
                self._tell({})
                beaten = now
            for position, line in self.lines.items():
                message = line.read(0.2 / len(self.lines))
                while message is not None:
                    if "value" in message:
                        self.told.put(message["value"])
                    if "done" in message:
                        self.done.add(position)
                    if "lost" in message:
                        self.loss = str(message["lost"])
                    message = line.read()
                silent = time.monotonic() - line.heard > SILENCE
                if (line.closed or silent) and self.loss is None:
                    self.loss = _lost(*self.trainers[position])
        if self.loss:
            self._tell({"lost": self.loss})
            if not self.left.wait(GRACE):
                print(f"videofusion: {self.loss}", file=sys.stderr, flush=True)
                os._exit(1)
        # Whoever still trains learns of it so.
        with self.writing:
            for line in self.lines.values():
                line.close()


class _Line:
    """A connection along which messages go, each a line of JSON."""

    def __init__(self, connection):
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.ready = selectors.DefaultSelector()
        self.ready.register(connection, selectors.EVENT_READ)
        self.kept = b""
        self.closed = False
        self.heard = time.monotonic()

    def send(self, message):
        """Sends a message; one that cannot go closes the line."""
        if self.closed:
            return
        try:
            self.connection.settimeout(BEAT)
            self.connection.sendall(json.dumps(message).encode() + b"\n")
            self.connection.setblocking(False)
        except OSError:
            self.closed = True

    def read(self, seconds=0.0):
        """The next message, or None if there is none within the seconds."""
        if b"\n" not in self.kept and not self.closed:
            try:
                if self.ready.select(seconds):
                    got = self.connection.recv(1 << 16)
                    self.heard = time.monotonic()
                    self.kept += got
                    self.closed = not got or len(self.kept) > LONGEST
            except (BlockingIOError, TimeoutError):
                pass
            except OSError:
                self.closed = True
        line, newline, rest = self.kept.partition(b"\n")
        if not newline:
            return None
        self.kept = rest
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            # Not one of ours: a web browser, a port scanner.
            self.closed = True
            return None
        return message

    def wait(self, seconds):
        """The next message, or None if the line closes or time is over."""
        end = time.monotonic() + seconds
        while not self.closed and time.monotonic() < end:
            message = self.read(0.2)
            if message is not None:
                return message
        return None

    def close(self):
        self.ready.close()
        self.connection.close()
        self.closed = True


def _listen(address):
    """A socket that listens at the port of this process's address."""
    _, port = split_address(address)
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        door = socket.create_server(
            ("", port),
            family=family,
            dualstack_ipv6=family == socket.AF_INET6,
            backlog=128,
        )
    except OSError as error:
        raise ClusterError(
            f"cannot listen at {address}, this process's own address in "
            f"`TF_CONFIG`: {error.strerror}"
        ) from error
    door.settimeout(0.1)
    return door
