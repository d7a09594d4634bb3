"""torchtitan without an accelerator: `python titan_on_cpu.py SCRIPT|MODULE [ARGUMENT ...]`.

torchtitan takes torch.cuda where it finds nothing else. What stands in its place here is torch.cpu,
with an accelerator's name and an empty account of its memory; attention that is not compiled, for
the compiled one has no backward on a CPU; and nothing in the place of its one file of GPU kernels,
which is imported by all and called by none of the models that are tried. The trainer, the metrics,
the checkpoints and the data are torchtitan's own.
"""

import importlib.machinery
import runpy
import sys
import types

import torch
import torch._utils
from torch.nn.attention import flex_attention

KERNELS = ("torchtitan.distributed.minimal_async_ep.kernels", "torchtitan.models.moe.kernels")


class Kernels(types.ModuleType):
    """Whatever is imported from it is there, and nothing that can be called."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)


def stand_in():
    """Make the processor torchtitan's accelerator."""
    torch._utils._get_available_device_type = lambda: "cpu"
    account = types.SimpleNamespace(total_memory=2**34)
    for name, answer in {
        "get_device_name": "CPU", "get_device_properties": account, "memory_stats": {},
        "current_device": 0, "set_device": None, "empty_cache": None,
        "reset_peak_memory_stats": None,
    }.items():  # fmt: skip
        setattr(torch.cpu, name, lambda *_, answer=answer: answer)
    flex_attention._validate_device = lambda *_: None
    torch.compile = lambda what=None, **_: what if what is not None else lambda made: made
    if not hasattr(torch.distributed, "set_timeout"):  # newer than the torch of these tests
        torch.distributed.set_timeout = lambda *_: None
    for name in KERNELS:
        sys.modules[name] = Kernels(name)


if __name__ == "__main__":
    stand_in()
    del sys.argv[0]
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
