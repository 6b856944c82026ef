"""Our dense matching against the reference's arithmetic: time, memory over the inputs, and how far the results differ.

Each side runs in a process of its own with the same random features and parameters, in turns. The forward pass is at
the paper's size; the backward pass at half of it, for the reference's takes the memory of four forward ones. Once with
a support that is all foreground, where no position can be left out, and once with a round object in its middle. Some
six minutes on two idle cores; nothing else should run beside it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from reference_matching import ReferenceMatcher, load_into_ours
from torch import Tensor

from dsvlfs.parts import correlation
from dsvlfs.parts.matching import DenseMatcher

BARS = {
    "forward": {"faster": 2.5, "memory_share": 1 / 5, "output_difference": 1e-5},
    "backward": {"memory_share": 1 / 3, "gradient_difference": 1e-4},
}
"""What is wanted of each pass: how many times as fast at least, the rest at most."""


def features(layers: int, channels: int, size: int, seed: int) -> list[Tensor]:
    """Random ones, (1, channels, size, size) a layer, half of which every position shares, as an encoder's do."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(1, channels, 1, 1, generator=torch.Generator().manual_seed(0))
    return [torch.randn(1, channels, size, size, generator=generator).add_(shared) for _ in range(layers)]


def object_mask(size: int, radius: float) -> Tensor:
    """(1, size, size), nought or one: a disc in the middle, whose radius is given as a share of the side."""
    y, x = torch.meshgrid(*[(torch.arange(size) + 0.5) / size - 0.5] * 2, indexing="ij")
    return ((y**2 + x**2).sqrt() <= radius).float()[None]


def run(side: str, layers: int, channels: int, size: int, radius: float, backward: bool, file: Path) -> dict:
    """One pass in this process; the result, and with `backward` all gradients, go into a file. The side "exact" is the
    reference in float64."""
    torch.manual_seed(0)
    precision = torch.float64 if side == "exact" else torch.float32
    reference = ReferenceMatcher(layers).to(precision)
    ours = DenseMatcher(layers=layers)
    load_into_ours(reference, ours)

    def forward(query: list[Tensor], support: list[Tensor], mask: Tensor) -> Tensor:
        query, support, mask = [q.to(precision) for q in query], [s.to(precision) for s in support], mask.to(precision)
        if side == "ours":
            return ours(query, support, mask, mask.shape[-1])
        return reference(query, support, mask)

    # What is imported or set up once is no part of the matching; ours takes its way of many parts here too.
    chunk, correlation.CHUNK = correlation.CHUNK, 2**12
    warm = [features(layers, 8, 8, seed) for seed in (1, 2)]
    forward(*warm, object_mask(8, radius)).sum().backward()
    correlation.CHUNK = chunk
    for parameter in [*reference.parameters(), *ours.parameters()]:
        parameter.grad = None
    query, support = (features(layers, channels, size, seed) for seed in (1, 2))
    mask = object_mask(size, radius)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    wall, cpu = time.perf_counter(), time.process_time()
    if backward:
        output = forward(query, support, mask)
        output.square().mean().backward()
    else:
        with torch.inference_mode():
            output = forward(query, support, mask)
    result = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "extra_gib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**30,
    }
    gradients = [parameter.grad for parameter in (ours if side == "ours" else reference).parameters()]
    torch.save([output.detach().clone(), *(gradients if backward else [])], file)
    return result


def compare(case: dict, repeats: int, threads: int) -> dict:
    """Both sides of a case, in turns; with gradients, both are held against the exact ones."""
    measured: dict[str, list[dict]] = {"reference": [], "ours": []}
    # Freed tensors go back at once: the high-water mark is then of what is in use.
    malloc = {"MALLOC_MMAP_THRESHOLD_": str(2**22), "MALLOC_TRIM_THRESHOLD_": str(2**24)}
    environment = {**os.environ, **malloc, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:

        def passed(side: str) -> dict:
            request = json.dumps({**case, "side": side, "file": str(Path(folder, side))})
            command = [sys.executable, __file__, "--request", request]
            return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)

        for _ in range(repeats):
            for side, results in measured.items():
                results.append(passed(side))
        if case["backward"]:
            passed("exact")
        tensors = {path.name: torch.load(path, weights_only=True) for path in Path(folder).iterdir()}
    expected = tensors.get("exact", tensors["reference"])
    median = {
        side: {name: statistics.median(r[name] for r in results) for name in results[0]}
        for side, results in measured.items()
    }
    # The first two biases of a block are before a normalisation: their gradients are nothing but rounding.
    scale = max(tensor.abs().max() for tensor in expected[1:]) if case["backward"] else 0

    def gradient_difference(side: str) -> float | None:
        pairs = zip(tensors[side][1:], expected[1:], strict=True)
        return max((((a - b).abs().max() / scale).item() for a, b in pairs), default=None)

    return {
        **case,
        **median,
        "faster": median["reference"]["seconds"] / median["ours"]["seconds"],
        "less_cpu": median["reference"]["cpu_seconds"] / median["ours"]["cpu_seconds"],
        "memory_share": median["ours"]["extra_gib"] / median["reference"]["extra_gib"],
        "output_difference": ((tensors["ours"][0] - expected[0]).abs().max() / expected[0].abs().max()).item(),
        "gradient_difference": gradient_difference("ours"),
        "reference_gradient_difference": gradient_difference("reference"),
    }


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--channels", type=int, default=1280)
    parser.add_argument("--size", type=int, default=64, help="side of both grids; the backward pass takes half")
    parser.add_argument(
        "--radius",
        type=float,
        default=0.3,
        help="the round object's share of the side; 0.3: 28 %% of the photo",
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    parser.add_argument("--request", help=argparse.SUPPRESS)  # of a child process
    arguments = parser.parse_args()
    if arguments.request:
        print(json.dumps(run(**json.loads(arguments.request))))
        return
    results = []
    head = ("pass", "side", "object", "reference", "ours", "faster", "less CPU", "memory", "differs", "bars")
    widths = (8, 5, 8, 19, 19, 8, 10, 8, 9, 12)
    print("".join(f"{text:>{width}}" for text, width in zip(head, widths)))
    for backward, radius in ((False, 1.0), (False, arguments.radius), (True, 1.0), (True, arguments.radius)):
        case = {
            "layers": arguments.layers,
            "channels": arguments.channels,
            "size": arguments.size // (2 if backward else 1),
            "radius": radius,
            "backward": backward,
        }
        result = compare(case, arguments.repeats, arguments.threads)
        results.append(result)
        case_bars = BARS["backward" if backward else "forward"]
        missed = [n for n, bar in case_bars.items() if (result[n] < bar if n == "faster" else result[n] > bar)]
        result |= {"foreground": object_mask(case["size"], radius).mean().item(), "missed": missed}
        sides = [f"{result[s]['seconds']:7.1f} s {result[s]['extra_gib']:5.2f} GiB" for s in ("reference", "ours")]
        row = (
            "backward" if backward else "forward",
            case["size"],
            f"{result['foreground']:.0%}",
            *sides,
            f"{result['faster']:.1f} x",
            f"{result['less_cpu']:.1f} x",
            f"{result['memory_share']:.0%}",
            f"{result['gradient_difference'] if backward else result['output_difference']:.1e}",
            f"  missed: {', '.join(missed)}" if missed else "met",
        )
        print("".join(f"{text:>{width}}" for text, width in zip(row, widths)), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
