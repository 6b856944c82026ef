"""Does the mask follow what is asked for? Each mosaic query is asked for each of its tiles in turn, by a support alone
(mode visual), by the name alone (semantic), and by both: how often does the tile asked for hold most foreground?

The support is another photo under the same validation class as the tile; a tile without one is not asked for.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dsvlfs import DSVLFSModel
from dsvlfs.data.mosaic import compose_mosaic
from dsvlfs.data.photos import load_photo_folder
from dsvlfs.files import read_json_lines
from dsvlfs.inference.checks import MODES
from dsvlfs.measuring.metrics import predicted_tile


def main() -> None:
    """Prints and writes the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the validation photos")
    parser.add_argument(
        "--mosaics", type=int, default=30, help="queries, evenly taken from episodes_mosaic_1shot.jsonl"
    )
    parser.add_argument("--model", default="dsvlfs-tiny")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    photos = {row["photo_id"]: row for row in load_photo_folder(arguments.root)}
    entries = read_json_lines(arguments.root / "episodes_mosaic_1shot.jsonl")
    members: dict[str, list[str]] = {
        name: [p for p, row in photos.items() if name in row["class_names"]]
        for name in sorted({entry["class_name"] for entry in entries})
    }
    class_of = {photo: name for name, stems in members.items() for photo in stems}
    model = DSVLFSModel.from_pretrained(arguments.model)
    right, asked = Counter(), Counter()
    for index in tqdm(np.linspace(0, len(entries) - 1, arguments.mosaics).astype(int)):
        entry = entries[index]
        stems = list(entry["distractors"])
        stems.insert(entry["position"], entry["query"])
        tiles = [(photos[stem]["image"], np.array(photos[stem]["mask"]) > 0) for stem in stems]
        scene, _masks = compose_mosaic(tiles)
        layout = (2, 2)
        for position, stem in enumerate(stems):
            name = class_of[stem]
            others = [other for other in members[name] if other not in stems]
            if not others or sum(class_of[other] == name for other in stems) > 1:
                continue
            example = photos[others[rng.integers(len(others))]]
            support = model.encode_support([(example["image"], np.array(example["mask"]) > 0)])
            for mode in MODES:
                mask = model.segment(scene, name, support=support, mode=mode).mask
                right[mode] += predicted_tile(mask, layout) == position
                asked[mode] += 1
    result = {mode: {"right_tile": 100 * right[mode] / asked[mode], "asked": asked[mode]} for mode in MODES}
    for mode, figures in result.items():
        print(f"{mode:>8}: {figures['right_tile']:5.1f} % of {figures['asked']} (chance: 25 %)")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
