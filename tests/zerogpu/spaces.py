"""What a ZeroGPU Space makes of a function, without its GPU, in place of the package of this name.

The function runs in a forked process; what it takes and returns, or raises, goes through a pipe; and no network may be
run outside of one, where there is no GPU.
"""

import functools
import multiprocessing
import pickle

import torch

torch.set_num_threads(1)  # a fork of a process with OpenMP's threads may hang
forks = multiprocessing.get_context("fork")
inside = False
call = torch.nn.Module.__call__


def GPU(duration):
    def decorate(task):
        @functools.wraps(task)
        def run(*args):
            if inside:
                return task(*args)
            ours, theirs = forks.Pipe()
            process = forks.Process(target=work, args=(task, pickle.dumps(args), theirs))
            process.start()
            ok, result = ours.recv()
            process.join()
            if ok:
                return result
            raise result

        run.duration = duration
        return run

    return decorate


def work(task, args, pipe):
    global inside
    inside = True
    try:
        answer = True, task(*pickle.loads(args))
    except Exception as error:
        answer = False, error
    pipe.send(answer)


def only_inside(self, *args, **kwargs):
    if not inside:
        raise RuntimeError("a network was run where ZeroGPU has no GPU")
    return call(self, *args, **kwargs)


torch.nn.Module.__call__ = only_inside
