"""The forks in which the proofs run their targets."""

import threading

import torch

from benchmarks.forks import finish

NUM_THREADS = 4


def use_torch_at_once(place):
    """0 when as many threads as load a model could use torch, all as the first."""
    barrier, done = threading.Barrier(NUM_THREADS), []

    def use():
        barrier.wait()
        done.append(torch.ones(300, 300).half().float())

    threads = [threading.Thread(target=use) for _ in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return int(len(done) < NUM_THREADS)


def test_threads_of_a_fork_use_torch_at_once(tmp_path):
    torch.set_num_threads(1)  # as every harness does: each thread then asks for the pool
    torch.ones(300, 300).half().float()  # the parent has one, whose threads a fork lacks
    for number in range(20):
        finish(use_torch_at_once, tmp_path / str(number))
