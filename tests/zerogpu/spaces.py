"""A replacement of the package `spaces` that behaves like ZeroGPU, without a GPU.

A decorated function runs in a forked process; its arguments and its result or exception pass through a pipe; a
generator runs to its end there. Networks
raise an exception outside of such a function, where ZeroGPU has no GPU.
"""

import functools
import inspect
import multiprocessing
import pickle

import torch

torch.set_num_threads(1)  # a fork of a process with OpenMP threads may hang
forks = multiprocessing.get_context("fork")
is_inside = False
call_module = torch.nn.Module.__call__


def GPU(duration):
    def decorate(function):
        @functools.wraps(function)
        def run(*args):
            if is_inside:
                return function(*args)
            ours, theirs = forks.Pipe()
            process = forks.Process(target=work, args=(function, pickle.dumps(args), theirs))
            process.start()
            succeeded, result = ours.recv()
            process.join()
            if not succeeded:
                raise result
            return iter(result) if inspect.isgeneratorfunction(function) else result

        run.duration = duration
        return run

    return decorate


def work(function, args, pipe):
    global is_inside
    is_inside = True
    try:
        result = function(*pickle.loads(args))
        answer = True, list(result) if inspect.isgenerator(result) else result
    except Exception as error:
        answer = False, error
    pipe.send(answer)


def call_inside(self, *args, **kwargs):
    if not is_inside:
        raise RuntimeError("network called outside a GPU function")
    return call_module(self, *args, **kwargs)


torch.nn.Module.__call__ = call_inside
