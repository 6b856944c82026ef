"""Fits a checkpoint's semantic prompt again, in closed form, to the feature cache that it was trained from: with other
settings of the descriptions, nothing else changes.

python train/fit_names.py CHECKPOINT --config train/configs/tiny.yaml --cache runs/tiny/cache --out OUT
"""

import argparse
import sys
from pathlib import Path

import torch

from .. import DSVLFSModel, InputError
from .alignment import SemanticAlignment, TextStates
from .feature_cache import FeatureCache
from .settings import load_config


def main() -> None:
    """Fits and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder of the checkpoint, or dsvlfs-tiny")
    parser.add_argument("--config", type=Path, required=True, help="its settings of the descriptions are used")
    parser.add_argument("--cache", type=Path, required=True, help="the feature cache that it was trained from")
    parser.add_argument("--out", type=Path, required=True, help="folder for the result, a checkpoint")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    model = DSVLFSModel.from_pretrained(arguments.checkpoint)
    if model.semantic_encoder.is_adapted:
        raise InputError(f"The language model of {arguments.checkpoint} is adapted to photos; fit one that is not.")
    cache = FeatureCache(arguments.cache)
    cache.check(model.config)
    states = TextStates(model, cache.folder / "texts.safetensors")
    alignment = SemanticAlignment(model, cache, states, description_noise=config.description_noise)
    alignment.check(model)
    alignment.apply(model)
    model.save_pretrained(arguments.out, dtype=torch.float16)
    print(f"Held-out names find their own photo among four in {alignment.accuracy:.0%}; written to {arguments.out}")


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"fit_names.py: {error}")
