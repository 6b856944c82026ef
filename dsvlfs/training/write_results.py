"""Puts results of `dsvlfs evaluate` into the metadata of a model card, in place of those that it has.

python train/write_results.py CARD.md "mosaics of novel classes=mosaic_both.json" "COCO val2017 scenes=scenes_both.json"
"""

import argparse
import json
from pathlib import Path

from ..hub.model_card import write_results


def main() -> None:
    """Rewrites the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("card", type=Path, metavar="CARD.md")
    parser.add_argument("results", nargs="+", metavar="DATA=RESULT.json", help="name of the data, and the result on it")
    parser.add_argument("--model-name", default="dsvlfs-tiny", help="default: dsvlfs-tiny")
    arguments = parser.parse_args()
    results = {}
    for given in arguments.results:
        name, found, file = given.rpartition("=")
        if not found:
            parser.error(f"{given} is not DATA=RESULT.json")
        results[name] = json.loads(Path(file).read_text(encoding="utf-8"))
    write_results(arguments.card, arguments.model_name, results)


if __name__ == "__main__":
    main()
