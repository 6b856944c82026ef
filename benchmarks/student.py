"""From photos to a trained student: labelled with five supports a class, reviewed by a simulated person who draws the
true masks of the worst, ten a class, each a further support, and a student trained on each, and on the true masks.

The person says what `dsvlfs review` would write down; the labels are those of `dsvlfs label`, run twice.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from review_loop import Photo, pack

from dsvlfs.cli import main as dsvlfs
from dsvlfs.files import read_json
from dsvlfs.hub.bases import load_base
from dsvlfs.labelling.record import Record
from dsvlfs.labelling.review import worst_first
from dsvlfs.labelling.verdicts import Verdicts
from dsvlfs.parts.efficientnet_lite import EfficientNetLiteModel

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from train_student import features_of, miou, segment, train

SHOTS = 5
SEEDS = 3


def split(
    photos: Sequence[Photo], classes: int, pool: int, test: int
) -> tuple[list[list[Photo]], list[Photo], list[Photo]]:
    """The supports of each class, the pool and the photos to test on, none of them twice."""
    order = [photos[place] for place in np.random.default_rng(0).permutation(len(photos))]
    supports, used = [], set()
    for number in range(1, classes + 1):
        own = [photo for photo in order if photo.name not in used and (photo.truth == number).mean() >= 0.03][:SHOTS]
        supports.append(own)
        used |= {photo.name for photo in own}
    rest = [photo for photo in order if photo.name not in used]
    # As many of each class as of the next, as far as they go.
    shares = [[photo for photo in rest if (photo.truth == number).any()] for number in range(1, classes + 1)]
    even = list(
        {p.name: p for place in range(len(rest)) for share in shares for p in share[place : place + 1]}.values()
    )
    return supports, even[:pool], even[pool : pool + test]


def write_project(
    folder: Path, supports: Sequence[Sequence[Photo]], pool: Sequence[Photo], names: Sequence[str]
) -> None:
    """The photos to label, and `project.yaml`."""
    (folder / "photos").mkdir()
    for photo in pool:
        photo.image.save(folder / "photos" / f"{photo.name}.png")
    lines = ["classes:"]
    for number, (name, own) in enumerate(zip(names, supports), 1):
        lines += [f"  {name}:", "    supports:"]
        for photo in own:
            photo.image.save(folder / f"{name}_{photo.name}.png")
            mask = Image.fromarray(np.uint8(255 * (photo.truth == number)))
            mask.save(folder / f"{name}_{photo.name}_mask.png")
            lines.append(f"      - {{photo: {name}_{photo.name}.png, mask: {name}_{photo.name}_mask.png}}")
    (folder / "project.yaml").write_text("\n".join(lines) + "\n")


def label(folder: Path, further: Sequence[str]) -> None:
    """Labels the photos, or those that nobody has drawn again; with further words of the command."""
    words = ["label", "--project", folder / "project.yaml", "--photos", folder / "photos", "--out"]
    words += [folder / "out", *further]
    if dsvlfs(list(map(str, words))):
        raise SystemExit("dsvlfs label failed")


def review(folder: Path, pool: Sequence[Photo], names: Sequence[str], corrections: int) -> None:
    """Draws the true maps of the worst labels, each a further support where it shows a class."""
    settings = read_json(folder / "out" / "settings.json")
    del settings["command"]
    record = Record(folder / "out", settings, settings.pop("place"))
    known = {f"{photo.name}.png": photo for photo in pool}
    with record.joined():
        verdicts = Verdicts(record, names)
        for worst in worst_first(list(record.labels.values()))[:corrections]:
            photo = known[worst.photo]
            truth = np.where(photo.truth > len(names), 0, photo.truth)
            drawn = verdicts.draw(worst, truth, photo.image)
            verdicts.say(drawn, "accepted", is_support=drawn.area_percent > 0)


def maps(folder: Path, pool: Sequence[Photo]) -> list[np.ndarray]:
    """The labels of the pool."""
    return [np.array(Image.open(folder / "out" / "masks" / f"{photo.name}.png")) for photo in pool]


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--pack", choices=("voc", "camvid"), required=True)
    parser.add_argument("--pool", type=int, default=90, help="photos to label")
    parser.add_argument("--test", type=int, default=60, help="further photos")
    parser.add_argument("--corrections", type=int, default=10, help="a class")
    parser.add_argument("--alike", action="store_true", help="label with --alike")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    photos, names = pack(arguments.pack, arguments.data_root)
    supports, pool, test = split(photos, len(names), arguments.pool, arguments.test)
    words = ["--alike"] if arguments.alike else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_project(folder, supports, pool, names)
        label(folder, words)
        labels = {"labels": maps(folder, pool)}
        review(folder, pool, names, arguments.corrections * len(names))
        label(folder, words)
        labels["reviewed labels"] = maps(folder, pool)
    truth = [photo.truth for photo in pool]
    labels["true masks"] = truth
    labels["the supports' true masks alone"] = []
    tower = load_base(EfficientNetLiteModel, "efficientnet-lite2").eval()
    features, tested = ([features_of(tower, photo.image) for photo in own] for own in (pool, test))
    result = {"pack": arguments.pack, "classes": names, "pool": len(pool), "test": len(test), "student": {}}
    result["labels"] = {title: round(miou(own, truth, len(names)), 1) for title, own in labels.items() if own}
    shown = [photo for own in supports for photo in own]
    for title, own in labels.items():
        inputs = features if own else [features_of(tower, photo.image) for photo in shown]
        figures = []
        for seed in range(SEEDS):
            student = train(inputs, own or [photo.truth for photo in shown], len(names), seed)
            found = [segment(student, f, photo.image.size) for f, photo in zip(tested, test)]
            figures.append(round(miou(found, [photo.truth for photo in test], len(names)), 1))
        result["student"][title] = figures
        print(title, figures, flush=True)
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
