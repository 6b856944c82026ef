"""What half precision of a checkpoint's tensors costs: a float32 one against itself, rounded, on the examples."""

import argparse

import numpy as np
import torch

from dsvlfs import DSVLFSModel
from dsvlfs.page.examples import EXAMPLES


def probabilities(model: DSVLFSModel) -> list[np.ndarray]:
    """Of each example's query."""
    maps = []
    for example in EXAMPLES:
        support = model.encode_support([example.shot])
        maps.append(model.segment(example.query_file, example.class_name, support=support).probability)
    return maps


def main() -> None:
    """Prints the largest difference of a probability, and the share of pixels whose mask changes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a checkpoint in float32, such as RUN/last")
    model = DSVLFSModel.from_pretrained(parser.parse_args().model)
    exact = probabilities(model)
    with torch.no_grad():
        model.load_state_dict({n: t.half().float() for n, t in model.trained_state_dict().items()}, strict=False)
    rounded = probabilities(model)
    difference = max(np.abs(a - b).max() for a, b in zip(exact, rounded))
    changed = np.mean([((a >= 0.5) != (b >= 0.5)).mean() for a, b in zip(exact, rounded)])
    print(f"largest difference of a probability {difference:.4f}; mask changed at {changed:.5%} of the pixels")


if __name__ == "__main__":
    main()
