"""Objects of 30 to 240 pixels on photos of 480: the IoU with one look and with a second one, and the time of both."""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dsvlfs import DSVLFSModel

SIDE = 480


def composed(object_file: Path, mask_file: Path, ground: Path, size: int, rng: np.random.Generator) -> tuple:
    """A photo of `SIDE` pixels with an object pasted onto it, whose longer side has `size`, and the object's mask."""
    photo = Image.open(ground).convert("RGB")
    photo.thumbnail((SIDE, SIDE))
    mask = Image.open(mask_file).convert("L")
    cut = Image.open(object_file).convert("RGB")
    box = mask.getbbox()
    cut, mask = cut.crop(box), mask.crop(box)
    scale = size / max(mask.size)
    shape = [max(1, round(length * scale)) for length in mask.size]
    cut, mask = cut.resize(shape, Image.Resampling.BICUBIC), mask.resize(shape, Image.Resampling.BICUBIC)
    corner = tuple(int(rng.integers(0, max(1, room - length))) for room, length in zip(photo.size, shape))
    photo.paste(cut, corner, mask)
    whole = Image.new("L", photo.size)
    whole.paste(mask, corner)
    return photo, np.array(whole) > 127


def pairs(folder: Path, episodes: Path | None) -> Iterator[tuple[str, dict, dict]]:
    """Class, query and support: of the file of episodes, or each photo with the next one of its name."""
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    if episodes:
        known = {Path(line["image"]).stem: line for line in lines}
        for entry in map(json.loads, episodes.read_text().splitlines()):
            yield entry["class_name"], known[entry["query"]], known[entry["support"][0]]
        return
    by_name: dict[str, list[dict]] = {}
    for line in lines:
        by_name.setdefault(line["name"], []).append(line)
    for name, own in sorted(by_name.items()):
        yield from ((name, query, support) for query, support in zip(own, own[1:] + own[:1]) if query is not support)


def main() -> None:
    """Prints, for each size, the mean IoU without and with a second look, and the median seconds of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with metadata.jsonl: objects and supports")
    parser.add_argument("--episodes", type=Path, help="file of its episodes (default: photos of the same name)")
    parser.add_argument("--grounds", type=Path, required=True, help="folder of photos to paste onto")
    parser.add_argument("--model", default="dsvlfs-tiny")
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 60, 120, 240])
    parser.add_argument("--count", type=int, default=40)
    arguments = parser.parse_args()
    model = DSVLFSModel.from_pretrained(arguments.model)
    every = list(pairs(arguments.photos, arguments.episodes))
    chosen = [every[i] for i in np.random.default_rng(0).permutation(len(every))[: arguments.count]]
    grounds = sorted(arguments.grounds.glob("*.jpg"))
    found: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    for number, (name, query, support) in enumerate(chosen):
        shown = [(arguments.photos / support["image"], arguments.photos / support["mask"])]
        encoded = model.encode_support(shown)
        for size in arguments.sizes:
            rng = np.random.default_rng((number, size))
            ground = grounds[rng.integers(len(grounds))]
            files = arguments.photos / query["image"], arguments.photos / query["mask"]
            photo, mask = composed(*files, ground, size, rng)
            for zoom in (False, True):
                start = time.perf_counter()
                result = model.segment(photo, name, support=encoded, zoom=zoom, min_presence=0)
                seconds = time.perf_counter() - start
                union = (result.mask | mask).sum()
                found.setdefault((size, zoom), []).append(((result.mask & mask).sum() / union, seconds))
    print(f"{'pixels':>6} {'one look':>9} {'two':>6} {'seconds':>9}")
    for size in arguments.sizes:
        (once, quick), (twice, slow) = (np.array(found[size, zoom]).T for zoom in (False, True))
        print(f"{size:6} {once.mean():9.2f} {twice.mean():6.2f} {np.median(quick):5.2f} {np.median(slow):5.2f}")


if __name__ == "__main__":
    main()
