"""How much memory tensors take at once, followed on the meta device, where none of them has any."""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class PeakMemory(TorchDispatchMode):
    """Follows the tensors that are made while it is on: their bytes at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()
        self._results: dict[tuple, tuple] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        for tensor in _tensors((*arguments, *(options or {}).values())):
            self._known.add(tensor.untyped_storage()._cdata)  # made before, or met before
        result = self._call(function, arguments, options or {})
        for tensor in _tensors((result,)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        return result

    def _call(self, function: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        """Calls a function. On the meta device the shape of a sum or a product is slow to find, and a model asks for
        the same ones again and again: they are remembered by the arguments' shapes."""
        if torch.Tag.pointwise not in function.tags or function.is_view or options:
            return function(*arguments, **options)
        key = (function, *(_layout(a) if isinstance(a, Tensor) else (type(a), a) for a in arguments))
        if key in self._results:
            if function._schema.is_mutable:
                return arguments[0]
            shape, stride, dtype, device = self._results[key]
            return torch.empty_strided(shape, stride, dtype=dtype, device=device)
        result = function(*arguments)
        if isinstance(result, Tensor) and result.is_meta:
            self._results[key] = _layout(result)
        return result

    def _forget(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self.live -= size


def _layout(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among an operation's arguments or results, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


class HalvedProducts(TorchFunctionMode):
    """What autocast to bfloat16 does to the operands of products and convolutions; autocast itself passes the meta
    device over."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if function in _PRODUCTS:
            arguments = tuple(map(_halved, arguments))
            options = {name: _halved(value) for name, value in options.items()}
        return function(*arguments, **options)


_PRODUCTS = {
    F.linear,
    F.conv2d,
    F.conv_transpose2d,
    F.scaled_dot_product_attention,
    torch.matmul,
    torch.bmm,
    Tensor.matmul,
    Tensor.__matmul__,
}


def _halved(value: Any) -> Any:
    return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def backward(loss: Tensor) -> None:
    """`loss.backward()`, but that function modes which are on stay on in it: what is computed again has to be computed
    as before."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )
