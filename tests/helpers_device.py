"""The commands that may use a GPU, and a pretended one for machines without.

The pretended GPU keeps track of which tensors are on it: those that code sends to ``cuda``, which
stay where they are, and what is computed from them. Their ``device`` says ``cuda``. Operations that
fail on a real GPU fail here: those whose arguments are on two devices, and those that PyTorch
refuses because their order of summation is not fixed. Kernels, rounding, memory and speed are not
pretended: ``workflow/test_on_a_gpu.py`` and ``benchmarks/gpu.py`` look at those where there is a
GPU.
"""

import shutil
import weakref
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from transcoders.cli import app
from transcoders.config import load_scale
from workflow.running import REPOSITORY

SMOKE = load_scale(REPOSITORY / "config/smoke.yaml")
COMMANDS = [
    *(f"cache-activations {name}" for name in SMOKE.models),
    *(f"train {group.name}" for group in SMOKE.all_groups),
    *(f"evaluate {site.name}" for site in SMOKE.all_sites),
    *dict.fromkeys(f"find-circuits {case.model}" for case in SMOKE.circuits.cases),
    *["measure-replacement", "check-features", "greater-than", "gather-examples", "study-features"],
    *(f"gather-activity {name}" for name in SMOKE.labelled_models),
    "feature-browser",
]
"""What the smoke run computes on whatever device there is, in an order that works."""

FACTORIES = ("arange", "empty", "full", "ones", "randn", "tensor", "zeros")
# Copies go from device to device, and positions may be on the CPU.
MAY_MIX = ("copy_", "_copy_from", "index", "index_put", "_index_put_impl_")
# What PyTorch refuses to do on a GPU once algorithms must be deterministic; of its list, what might
# be used here.
SUMS = ("cumsum", "bincount")
NOT_DETERMINISTIC = ("histc", "kthvalue", "median", "put_", *SUMS)


def call(command):
    """Call a command of the command line at the smoke scale, in this process."""
    name, *arguments = command.split()
    app([name, "--scale", "smoke", *arguments], standalone_mode=False)


def copy_for_a_gpu(run, folder, *left_out):
    """Copy a smoke run to be computed again, on whatever device there is."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(".snakemake", *left_out))
    scale = folder / "config/smoke.yaml"
    scale.write_text(scale.read_text().replace("device: cpu", "device: auto"))
    return folder


class PretendedGpu(TorchDispatchMode):
    """Marks results of marked tensors, and refuses operations on two devices."""

    def __init__(self):
        super().__init__()
        self.operations = 0
        self._marked: set[int] = set()

    def mark(self, tensor):
        storage = _storage(tensor)
        key = storage._cdata
        if key not in self._marked:
            self._marked.add(key)
            weakref.finalize(storage, self._marked.discard, key)
        return tensor

    def has(self, tensor):
        return _storage(tensor)._cdata in self._marked

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        marked = [tensor for tensor in given if self.has(tensor)]
        # A number in a tensor of no dimension may come from the CPU.
        elsewhere = [tensor for tensor in given if not self.has(tensor) and tensor.dim()]
        name = func.name().removeprefix("aten::").split(".")[0]
        if marked and elsewhere and name not in MAY_MIX:
            shapes = [tuple(tensor.shape) for tensor in elsewhere]
            raise AssertionError(f"{func}: tensors of {shapes} are on the CPU, others on the GPU")
        # Sums of integers come out the same in any order.
        counts = name in SUMS and not any(tensor.is_floating_point() for tensor in given)
        if marked and name in NOT_DETERMINISTIC and not counts:
            raise AssertionError(f"{func}: not deterministic on a GPU")
        made = func(*args, **(kwargs or {}))
        if marked and not (name == "copy_" and not self.has(given[0])):
            self.operations += 1
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor):
                    self.mark(tensor)
        return made


@contextmanager
def pretended_gpu():
    """Within the block, ``cuda`` is there."""
    gpu = PretendedGpu()
    # PyTorch remembers, at the first such need of the process, which functions make tensors: it
    # must not be those that stand in for them below.
    _device_constructors()
    real_device = torch.Tensor.device
    with pytest.MonkeyPatch.context() as patch:

        def device(tensor):
            return torch.device("cuda") if gpu.has(tensor) else real_device.__get__(tensor)

        to, cpu, numpy = torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.numpy

        def pretended_to(tensor, *args, **kwargs):
            named = kwargs.get("device")
            if _is_device(named):
                del kwargs["device"]
            wanted = [a for a in (*args, named) if _is_device(a)]
            wanted += [a.device for a in args if isinstance(a, Tensor)]
            rest = [a for a in args if isinstance(a, torch.dtype | Tensor)]
            moved = to(tensor, *rest, **kwargs) if rest or kwargs else tensor
            if not wanted:
                return moved
            on_gpu = torch.device(wanted[0]).type == "cuda"
            if on_gpu == gpu.has(tensor):
                return moved
            moved = _elsewhere(moved)
            return gpu.mark(moved) if on_gpu else moved

        def _elsewhere(tensor):
            with torch.utils._python_dispatch._disable_current_modes():
                return tensor.detach().clone()

        def pretended_numpy(tensor, **kwargs):
            if gpu.has(tensor):
                raise TypeError("can't convert a tensor on the GPU to numpy")
            return numpy(tensor, **kwargs)

        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_device_name", lambda _: "pretended")
        patch.setattr(torch.Tensor, "device", property(device))
        patch.setattr(torch.Tensor, "to", pretended_to)
        patch.setattr(torch.Tensor, "cpu", lambda t: _elsewhere(t) if gpu.has(t) else cpu(t))
        patch.setattr(torch.Tensor, "numpy", pretended_numpy)
        patch.setattr(
            torch.Tensor,
            "new_tensor",
            lambda t, data: torch.tensor(data, dtype=t.dtype, device=t.device),
        )
        for name in FACTORIES:
            patch.setattr(torch, name, _factory(getattr(torch, name), gpu))
        with gpu:
            yield gpu
    assert torch.Tensor.device is real_device


def _storage(tensor):
    return (tensor._values() if tensor.is_sparse else tensor).untyped_storage()


def _factory(make, gpu):
    def pretended(*args, device=None, **kwargs):
        if _is_device(device) and torch.device(device).type == "cuda":
            return gpu.mark(make(*args, **kwargs))
        return make(*args, device=device, **kwargs)

    return pretended


def _is_device(argument):
    if isinstance(argument, torch.device):
        return argument.type in ("cpu", "cuda")
    return isinstance(argument, str) and argument in ("cpu", "cuda")
