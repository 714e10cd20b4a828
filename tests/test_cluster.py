"""What `TF_CONFIG` may say, and what becomes of processes that are missing."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keras_videofusion.training import cluster
from keras_videofusion.training.cluster import (
    Cluster,
    ClusterError,
    expect_answers,
    Peers,
    read_cluster,
)


def config(jobs, job="worker", index=0):
    return json.dumps({"cluster": jobs, "task": {"type": job, "index": index}})


TWO = {"worker": ["a:1", "b:2"]}
SERVED = {"chief": ["c:1"], "ps": ["p:2"], "worker": ["w:3"]}


def test_the_chief_comes_before_the_workers(monkeypatch):
    jobs = {"worker": ["b:2", "[::1]:3"], "chief": ["a:1"], "evaluator": []}
    monkeypatch.setenv("TF_CONFIG", config(jobs, "worker", 1))
    found = read_cluster("multiworker")
    assert found.trainers == [
        ("chief 0", "a:1"), ("worker 0", "b:2"), ("worker 1", "[::1]:3"),
    ]  # fmt: skip
    assert found.position == 2


def test_servers_are_no_trainers():
    found = read_cluster("parameter-server", config(SERVED, "ps"))
    assert found.named("ps") == [("ps 0", "p:2")]
    assert [name for name, _ in found.trainers] == ["chief 0", "worker 0"]


@pytest.mark.parametrize(
    ("strategy", "text", "told"),
    [
        ("multiworker", "", r"needs .*`TF_CONFIG`.* Received: TF_CONFIG=''"),
        ("multiworker", "{", r"must be JSON.* Received: \{"),
        ("multiworker", "[]", r"of the form .* Received: \[\]"),
        ("multiworker", '{"cluster": {}}', r"of the form .* Received: "),
        ("multiworker", config({}), "one process or more of the job 'worker'"),
        ("multiworker", config({"worker": []}), "one process or more"),
        ("multiworker", config({"worker": "a:1"}), "list of addresses"),
        ("multiworker", config({"worker": ["a"]}), r'Received: \["a"\]'),
        ("multiworker", config({"worker": ["a:0"]}), "a host and a port"),
        ("multiworker", config({"worker": ["a:99999"]}), "a host and a port"),
        ("multiworker", config({"worker": ["http://a:1"]}), "a host and a"),
        ("multiworker", config({"worker": ["a:1", "a:1"]}), "of its own"),
        ("multiworker", config(TWO, "chief"), r"task type .*: worker\. Rec"),
        ("multiworker", config(TWO, index=2), "task index from 0 to 1"),
        ("multiworker", config(TWO, index=-1), "task index from 0 to 1"),
        ("multiworker", config(TWO, index="1"), "task index from 0 to 1"),
        ("multiworker", config(TWO, index=True), "task index from 0 to 1"),
        ("multiworker", config(SERVED), "may name the jobs chief, worker, ev"),
        ("parameter-server", config(TWO), "of the job 'chief'"),
        (
            "parameter-server",
            config({**SERVED, "chief": ["c:1", "d:1"]}),
            "must name one chief",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_line(strategy, text, told):
    with pytest.raises(ClusterError, match=told) as raised:
        read_cluster(strategy, text)
    assert "\n" not in str(raised.value)


def free(count):
    """Addresses at which nothing listens."""
    with contextlib.ExitStack() as stack:
        doors = []
        for _ in range(count):
            door = stack.enter_context(socket.socket())
            door.bind(("127.0.0.1", 0))
            doors.append(door)
        return tuple(f"127.0.0.1:{door.getsockname()[1]}" for door in doors)


@pytest.fixture
def met():
    """Function of (count, seconds, delays): all peers, or their errors."""
    every = []

    def meet(count, seconds=10.0, delays=None):
        jobs = {"worker": free(count)}
        delays = delays or {i: 0.0 for i in range(count)}

        def come(index):
            time.sleep(delays[index])
            try:
                return Peers(Cluster(jobs, "worker", index), seconds)
            except ClusterError as error:
                return str(error)

        with ThreadPoolExecutor(count) as pool:
            found = dict(zip(delays, pool.map(come, delays), strict=True))
        every.extend(found.values())
        return jobs["worker"], found

    yield meet
    for peers in every:
        if isinstance(peers, Peers):
            peers.leave()
    for thread in threading.enumerate():
        if thread.name == "peers":
            thread.join()


def test_none_goes_before_the_first_has_done(met):
    _, found = met(3)
    with ThreadPoolExecutor(3) as pool:
        ends = [pool.submit(found[i].finish) for i in (1, 2)]
        time.sleep(0.5)
        assert not any(end.done() for end in ends)
        found[0].finish()
        assert [end.result(5) for end in ends] == [None, None]
    assert not any(peers.loss for peers in found.values())


def die(peers):
    """What the kernel does for a process that was killed."""
    peers.left.set()
    for line in peers.lines.values():
        line.connection.shutdown(socket.SHUT_RDWR)


def test_one_process_alone_meets_nobody(met):
    _, found = met(1)
    assert found[0].agree([1]) == [1]


def test_all_hear_what_the_first_says(met):
    _, found = met(3)
    with ThreadPoolExecutor(3) as pool:
        said = pool.map(lambda i: found[i].agree({"epoch": i}), range(3))
    assert list(said) == [{"epoch": 0}] * 3


@pytest.mark.parametrize("late", [0, 2])
def test_who_comes_a_bit_late_is_waited_for(met, late):
    delays = {i: 1.5 * (i == late) for i in range(3)}
    _, found = met(3, 5.0, delays)
    assert all(isinstance(peers, Peers) for peers in found.values())


def test_all_are_told_who_does_not_come(met):
    addresses, found = met(3, 1.0, {0: 0.0, 1: 0.0})
    for told in found.values():
        assert told.startswith(
            f"missing after 1 seconds: worker 2 at {addresses[2]}."
        )


def test_the_first_is_missing_too(met):
    addresses, found = met(3, 1.0, {1: 0.0, 2: 0.0})
    for told in found.values():
        assert f"worker 0 at {addresses[0]}." in told


@pytest.mark.parametrize("dead", [0, 1])
def test_the_others_are_told_who_is_lost(met, dead):
    addresses, found = met(3)
    die(found[dead])
    for index in {0, 1, 2} - {dead}:
        told = found[index].news(5.0)
        assert told.startswith(f"lost worker {dead} at {addresses[dead]}.")
        assert "--resume" in told
        with pytest.raises(ClusterError, match="lost worker"):
            found[index].agree(None)


def test_silence_is_a_loss(met, monkeypatch):
    monkeypatch.setattr(cluster, "SILENCE", 0.5)
    _, found = met(2)
    # As a machine that lost its power: nothing comes, nothing closes.
    found[1].leave()
    assert "lost worker 1" in found[0].news(5.0)


def test_two_processes_of_one_task_are_one_too_many():
    addresses = free(3)
    found = []

    def come(index):
        jobs = {"worker": addresses}
        with pytest.raises(ClusterError) as raised:
            Peers(Cluster(jobs, "worker", index), 2.0)
        found.append(str(raised.value))

    threads = [threading.Thread(target=come, args=[i]) for i in (0, 1)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    # Its own port is taken only once TensorFlow listens there.
    come(1)
    for thread in threads:
        thread.join()
    assert any("worker 1 is there already" in told for told in found)
    assert any("missing" in told and "worker 2" in told for told in found)


def test_another_cluster_is_no_peer():
    own, other = free(2)

    def come(addresses, index):
        try:
            Peers(Cluster({"worker": addresses}, "worker", index), 1.0)
        except ClusterError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(come, (own, "127.0.0.1:9"), 0)
        second = pool.submit(come, (own, other), 1)
    assert "worker 1 at 127.0.0.1:9" in first.result()
    assert "the same cluster on every machine" in second.result()


def test_strangers_at_the_door_do_not_matter():
    addresses = free(2)
    jobs = {"worker": addresses}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Peers, Cluster(jobs, "worker", 0), 10.0)
        time.sleep(0.3)
        with contextlib.ExitStack() as stack:
            for text in (b"", b"GET / HTTP/1.1\r\n\r\n", b'{"at": "x"}\n[]\n'):
                stranger = stack.enter_context(
                    socket.create_connection(
                        cluster.split_address(addresses[0])
                    )
                )
                stranger.sendall(text)
            second = Peers(Cluster(jobs, "worker", 1), 10.0)
        first = first.result()
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(Peers.agree, (first, second), ({"a": 1}, {})))
        assert told == [{"a": 1}] * 2
        list(pool.map(Peers.finish, (first, second)))


def test_a_port_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        jobs = {"worker": (address, *free(1))}
        with pytest.raises(ClusterError, match=f"cannot listen at {address}"):
            Peers(Cluster(jobs, "worker", 0), 1.0)


def test_expected_answers_are_waited_for():
    address = free(1)[0]
    with pytest.raises(ClusterError, match=f"missing .* ps 0 at {address}"):
        expect_answers([("ps 0", address)], 0.2)
    with socket.create_server(cluster.split_address(address)):
        expect_answers([("ps 0", address)], 0.2)


HANGS = """
import importlib.util as u, sys, time
s = u.find_spec('keras_videofusion')
sys.modules['keras_videofusion'] = u.module_from_spec(s)
from keras_videofusion.training import cluster
cluster.GRACE = 0.2
jobs = {'worker': tuple(sys.argv[2:])}
peers = cluster.Peers(cluster.Cluster(jobs, 'worker', int(sys.argv[1])))
print('met', flush=True)
time.sleep(60)
"""


def test_a_process_that_hangs_upon_a_loss_ends():
    addresses = free(2)
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", HANGS, str(index), *addresses],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    )
    with first, second:
        assert second.stdout.readline() == "met\n"
        second.kill()
        _, told = first.communicate(timeout=30)
        assert first.returncode == 1
        assert told.startswith("videofusion: lost worker 1 at ")
        assert told.count("\n") == 1
