"""Our dense matching against the reference's arithmetic on one device, in this process: seconds, memory over the inputs
and how far the results differ, in float32 and bfloat16, forward and with the backward pass. `dense_matching.py` does it
on a CPU, a process each; `full_size.py` calls this for a GPU.

In bfloat16 a forward pass reads features of that precision with weights in float32, as a query does; with the backward
pass all is float32 under autocast, as in training."""

import itertools
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from clocks import Clock
from reference_matching import ReferenceMatcher, load_into_ours
from torch import Tensor

from dsvlfs.parts import correlation
from dsvlfs.parts.matching import DenseMatcher

Inputs = tuple[list[Tensor], list[Tensor], Tensor]
RADII = {"all foreground": 1.0, "a round object": 0.3}
LARGER_PARTS = (8, 32)
"""Times the numbers of a part of ours, tried with the backward pass: on a GPU many small parts wait for their start."""


def cases(clock: Clock, *, layers: int, channels: int, size: int, repeats: int = 3) -> Iterator[dict[str, Any]]:
    """Measures, a case at a time; the seconds are as PyTorch ships, what differs is without TF32.

    Args:
        clock: of the device.
        layers, channels: of the features.
        size: side of both grids.
        repeats: of each pass, after one that is not counted.
    """
    device = clock.device
    reference, ours = ReferenceMatcher(layers).to(device), DenseMatcher(layers=layers).to(device)
    load_into_ours(reference, ours)
    sides = {"reference": reference, "ours": lambda q, s, m: ours(q, s, m, m.shape[-1])}
    weights = {"reference": list(reference.parameters()), "ours": list(ours.parameters())}
    query, support = (_features(layers, channels, size, seed, device) for seed in (1, 2))
    for shown, backward, precision in itertools.product(RADII, (False, True), ("float32", "bfloat16")):
        mask = _disc(size, RADII[shown], device)
        given = query, support, mask
        if precision == "bfloat16" and not backward:
            given = [q.bfloat16() for q in query], [s.bfloat16() for s in support], mask
        case: dict[str, Any] = {"pass": "forward and backward" if backward else "forward", "precision": precision}
        case |= {"support": shown, "size": size, "layers": layers, "channels": channels}
        results = {}
        for side, forward in sides.items():
            autocast = precision == "bfloat16" and (backward or side == "reference")
            task = _task(forward, given, weights[side], backward, autocast)
            case[side], results[side] = _measured(task, clock, repeats)
        exact = None
        if all(results.values()):
            case["faster"] = case["reference"]["seconds"] / case["ours"]["seconds"]
            case["memory_share"] = case["ours"]["extra_gib"] / max(case["reference"]["extra_gib"], 1e-9)
            with _without_tf32():  # of float32; bfloat16 is held against it
                plain = _task(sides["reference"], (query, support, mask), weights["reference"], backward, False)
                exact = plain()
                if precision == "float32":
                    results["ours"] = _task(sides["ours"], given, weights["ours"], backward, False)()
            case |= _differences(results, exact)
        del results, exact
        yield case
    chunk = correlation.CHUNK
    for times, precision in itertools.product(LARGER_PARTS, ("float32", "bfloat16")):
        correlation.CHUNK = chunk * times
        given = query, support, _disc(size, 1.0, device)
        task = _task(sides["ours"], given, weights["ours"], True, precision != "float32")
        try:
            found, _ = _measured(task, clock, 1)
        finally:
            correlation.CHUNK = chunk
        yield {"pass": f"forward and backward, parts {times} times as large", "precision": precision} | {
            "support": "all foreground",
            "size": size,
            "ours": found,
        }


def _task(
    forward: Callable[..., Tensor], given: Inputs, weights: list[Tensor], backward: bool, autocast: bool
) -> Callable[[], list[Tensor]]:
    """A pass: the prompt, and with `backward` the gradients of the weights."""

    def run() -> list[Tensor]:
        halves: AbstractContextManager = nullcontext()
        if autocast:
            halves = torch.autocast(given[2].device.type, torch.bfloat16)
        if not backward:
            with torch.inference_mode(), halves:
                return [forward(*given)]
        with halves:
            output = forward(*given)
        gradients = torch.autograd.grad(output.float().square().mean(), weights)
        return [output.detach(), *gradients]

    return run


def _measured(task: Callable[[], list[Tensor]], clock: Clock, repeats: int) -> tuple[dict[str, Any], list[Tensor]]:
    """Seconds and memory, and the result; where it does not fit, nothing."""
    try:
        result = task()
        result = [tensor.cpu() for tensor in result]
        clock.rest()
        before = clock.held()
        seconds = [clock.seconds(task) for _ in range(repeats)]
    except torch.OutOfMemoryError:
        clock.rest()
        return {"seconds": None, "extra_gib": None, "missing": "out of memory"}, []
    return {"seconds": statistics.median(seconds), "extra_gib": clock.peak() - before}, result


def _differences(results: dict[str, list[Tensor]], exact: list[Tensor]) -> dict[str, float]:
    """Largest difference from the reference in float32 without TF32, by the largest number of what is compared; the
    gradients all by the largest of theirs."""
    exact = [tensor.cpu() for tensor in exact]
    found = {}
    for side, own in results.items():
        own = [tensor.cpu() for tensor in own]
        found[f"{side}_output_differs"] = ((own[0] - exact[0]).abs().max() / exact[0].abs().max()).item()
        if len(exact) > 1:
            scale = max(tensor.abs().max().item() for tensor in exact[1:])
            pairs = zip(own[1:], exact[1:], strict=True)
            found[f"{side}_gradients_differ"] = max((a - b).abs().max().item() for a, b in pairs) / scale
    return found


@contextmanager
def _without_tf32() -> Iterator[None]:
    """The default is TF32 in cuDNN's convolutions and not in matrix products."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _features(layers: int, channels: int, size: int, seed: int, device: torch.device) -> list[Tensor]:
    """As `dense_matching.features`, made on the device."""
    generator = torch.Generator(device).manual_seed(seed)
    shared = torch.randn(1, channels, 1, 1, generator=torch.Generator(device).manual_seed(0), device=device)
    shape = (1, channels, size, size)
    return [torch.randn(shape, generator=generator, device=device).add_(shared) for _ in range(layers)]


def _disc(size: int, radius: float, device: torch.device) -> Tensor:
    """(1, size, size), nought or one: a disc in the middle, whose radius is given as a share of the side."""
    steps = (torch.arange(size, device=device) + 0.5) / size - 0.5
    return ((steps[:, None] ** 2 + steps[None] ** 2).sqrt() <= radius).float()[None]
