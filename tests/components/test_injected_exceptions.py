"""Exceptions at random operations of a forward leave the model as it was.

`tests/benchmarks/injected.py` raises a thousand.
"""

import torch
from injected_exceptions import Left, inject, n_hooks


def test_exceptions_anywhere_leave_no_hook_and_the_same_model(tiny, tiny_task):
    assert inject(tiny, tiny_task, 25) == Left(injected=25)


def test_a_hook_that_stays_is_counted(tiny):
    before = n_hooks(tiny)
    handle = tiny.original_model.register_forward_hook(lambda *_: None)
    assert n_hooks(tiny) > before
    handle.remove()
    assert n_hooks(tiny) == before
    assert not torch.is_grad_enabled() or tiny.training is False
