"""Processes that answer questions, and may die of one.

They load the room whose work they do and not the package's `__init__`, which
would load Keras; they are started anew, never forked, so that no lock of
TensorFlow's comes along. Questions and answers are lines of JSON; what is
large goes through files.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

_CODE = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
spec = importlib.util.find_spec("keras_videofusion")
sys.modules["keras_videofusion"] = importlib.util.module_from_spec(spec)
from {module} import serve
serve()
"""
_PARENT = str(Path(__file__).parents[2])
_READY = b"ready\n"


def code_of(module: str) -> str:
    """What a process runs: `serve()` of a module.

    Args:
        module: Name of a module that Keras does not stand above.
    """
    return _CODE.format(module=module)


class Team:
    """Some processes, each of which answers a question at a time.

    They end with the `with` block, even in the middle of a question.

    Args:
        code: String, what `code_of` returned.
        count: Integer, how many processes.
        each: Integer: a process is replaced after so many answers, since what
            libraries lose adds up; None: never.
    """

    def __init__(self, code: str, count: int, each: int | None = None):
        self.processes = [_Process(code, each) for _ in range(count)]
        self.idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in self.processes:
            self.idle.put(process)
        self.pool = ThreadPoolExecutor(count)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.give_up()
        self.pool.shutdown(cancel_futures=True)
        for process in self.processes:
            process.ended()

    def ask(self, question: Any, last: int = 0) -> tuple[Any, int]:
        """Asks whoever is idle, from any thread.

        A process may have died of something else. If a second one does, it
        is the question.

        Args:
            question: What JSON can tell.
            last: Integer, the exit status of a process that knew of what it
                died: no second one is asked.

        Returns:
            The answer, and 0; or None, and the exit status of the process.

        Raises:
            RuntimeError: If a process does not start, or all are given up.
        """
        process = self.idle.get()
        try:
            for _ in range(2):
                answer, status = process(question)
                if status in (0, last):
                    break
            return answer, status
        finally:
            self.idle.put(process)

    def in_order(
        self, function: Callable[[Any], Any], items: Iterable
    ) -> Iterator[Any]:
        """What a function that asks says of some items, in their order.

        Args:
            function: Called by threads, as many as there are processes.
            items: Iterable; a million are not all queued at once, and a slow
                one in front does not keep the others waiting.

        Yields:
            What the function returned.
        """
        ahead: deque[Future] = deque()
        left = iter(items)
        while True:
            for item in left:
                ahead.append(self.pool.submit(function, item))
                if len(ahead) >= 1000 * len(self.processes):
                    break
            if not ahead:
                return
            yield ahead.popleft().result()


class _Process:
    """A process of a `Team`; started when there is a question."""

    def __init__(self, code, each):
        self.code, self.each = code, each
        self.process: Any = None  # of `subprocess.Popen`
        self.answers = 0
        self.given_up = False
        self.lock = threading.Lock()

    def __call__(self, question):
        """The answer and 0, or None and what the process ended with."""
        process = self._started()
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = b""
        if not answer.endswith(b"\n"):
            # One that ended well without an answer has failed all the same.
            return None, self.ended() or 1
        self.answers += 1
        return json.loads(answer), 0

    def _started(self):
        if self.each and self.answers >= self.each:
            self.ended()
        with self.lock:
            if self.given_up:
                raise RuntimeError("the work was given up")
            if self.process is None:
                self.answers = 0
                self.process = subprocess.Popen(
                    [sys.executable, "-c", self.code, _PARENT],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    # One thread each: there are processes enough, threads
                    # would be given memory, and sums keep their order.
                    env={
                        **os.environ,
                        "OMP_NUM_THREADS": "1",
                        "OPENBLAS_NUM_THREADS": "1",
                        "MKL_NUM_THREADS": "1",
                    },
                )
            process = self.process
        if not self.answers and process.stdout.readline() != _READY:
            raise RuntimeError(
                f"a worker process does not start: {name_of(self.ended())}"
            )
        return process

    def ended(self):
        """Lets the process go; returns its exit status."""
        process, self.process = self.process, None
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        return process.wait()

    def give_up(self):
        """Ends the process, even amid a question, and starts none."""
        with self.lock:
            self.given_up = True
            if self.process:
                self.process.kill()


def name_of(status: int) -> str:
    """What a process ended with, in words.

    Args:
        status: Integer, its exit status; negative if a signal ended it.
    """
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"


def answer_all(answer: Callable[[Any], Any]) -> None:
    """What a process runs: it answers until nothing more can come.

    So none outlives whoever asked. Ctrl-C is theirs, not its.

    Args:
        answer: Function of a question; both are what JSON can tell.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    answers.write(_READY)
    for line in sys.stdin.buffer:
        told = json.dumps(answer(json.loads(line))).encode() + b"\n"
        try:
            answers.write(told)
        except OSError:
            return
