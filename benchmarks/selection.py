"""How good is the mask that a box, or a point, gives? The box is the object's bounding box, the point is the object's
pixel nearest to its centre of mass; the mean IoU with the object's mask, beside that of the box itself."""

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dsvlfs import DSVLFSModel
from dsvlfs.data.photos import load_coco, load_photo_folder
from dsvlfs.inference.selection import mask_at_points, mask_in_box


def main() -> None:
    """Prints and writes the mean IoU of each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of photos with metadata.jsonl, or COCO's")
    parser.add_argument("--coco-split", help="the root is COCO's; use this split, such as val2017")
    parser.add_argument("--objects", type=int, default=40, help="evenly taken (default: 40)")
    parser.add_argument("--model", default="dsvlfs-tiny")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    split = arguments.coco_split
    rows = load_coco(arguments.root, split) if split else load_photo_folder(arguments.root)
    model = DSVLFSModel.from_pretrained(arguments.model)
    ious: dict[str, list[float]] = {"the box itself": [], "mask of the box": [], "mask of a point": []}
    for index in tqdm(np.unique(np.linspace(0, len(rows) - 1, arguments.objects).astype(int))):
        photo, mask = rows[int(index)]["image"].convert("RGB"), np.array(rows[int(index)]["mask"]) > 0
        ys, xs = mask.nonzero()
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        filled = np.zeros_like(mask)
        filled[box[1] : box[3], box[0] : box[2]] = True
        innermost = ((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2).argmin()
        found = (filled, mask_in_box(model, photo, box), mask_at_points(model, photo, [(xs[innermost], ys[innermost])]))
        for values, candidate in zip(ious.values(), found):
            values.append((candidate & mask).sum() / (candidate | mask).sum())
    result = {way: {"iou": 100 * float(np.mean(values)), "objects": len(values)} for way, values in ious.items()}
    for way, figures in result.items():
        print(f"{way:>16}: {figures['iou']:5.1f} % of {figures['objects']}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
