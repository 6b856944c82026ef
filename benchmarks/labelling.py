"""Labelling, with the packaged model: five classes at once against five runs, memory on large photos, objects against
connected parts, and runs that are killed."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from page import resident_mib
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from dsvlfs import DSVLFSModel, Labeller, Sample
from dsvlfs.inference.encoded import Support
from dsvlfs.inference.photos import Photo, load_photo
from dsvlfs.labelling.closer import CloserPrediction, views_of
from dsvlfs.labelling.settling import SMALL_IS_WORSE, AnyPrediction, Cut, settle

ROOT = Path(__file__).parents[1]
TRAIN, VAL = "train2017", "val2017"
MEGAPIXELS = (4000, 3000)
SHOTS = 1


def scenes(data: Path, split: str) -> COCO:
    """COCO's instances of a split."""
    return COCO(data / "coco_sample" / "annotations" / f"instances_{split}.json")


def class_mask(coco: COCO, image: int, category: int) -> np.ndarray:
    """A class's pixels, bool (height, width)."""
    found = coco.loadAnns(coco.getAnnIds(image, category))
    return np.any([coco.annToMask(entry) for entry in found], axis=0)


def largest(coco: COCO, category: int, least: int) -> list[int]:
    """The photos that show most of a class, `least` of them where there are so many."""
    areas: Counter[int] = Counter()
    for entry in coco.loadAnns(coco.getAnnIds(catIds=category, iscrowd=False)):
        areas[entry["image_id"]] += entry["area"]
    return [image for image, _ in areas.most_common(least)]


def labelled(out: Path, photos: Path, *given: str) -> tuple[float, list[tuple[float, float]]]:
    """Runs `dsvlfs label`: seconds, and (seconds, MiB) every half second."""
    command = [sys.executable, "-m", "dsvlfs", "label", *given, "--photos", str(photos), "--out", str(out)]
    started, memory = time.perf_counter(), []
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def watch() -> None:
        while run.poll() is None:
            try:
                memory.append((time.perf_counter() - started, resident_mib(run.pid)))
            except (OSError, StopIteration):
                return
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if run.wait():
        raise SystemExit("dsvlfs label failed: " + " ".join(command))
    watcher.join()
    return time.perf_counter() - started, memory


def project(data: Path, folder: Path, number: int) -> dict[str, Any]:
    """The commonest classes of the val scenes, each with the train photo that shows most of it, as project files: one
    of all, and one for each."""
    train, val = scenes(data, TRAIN), scenes(data, VAL)
    common = Counter({category: len(val.getImgIds(catIds=category)) for category in val.getCatIds()})
    classes = {}
    for category, _ in common.most_common(number):
        (image,) = largest(train, category, 1)
        name = train.loadCats(category)[0]["name"]
        mask = folder / f"{name}.png"
        Image.fromarray(class_mask(train, image, category).astype(np.uint8) * 255).save(mask)
        photo = data / "coco_sample" / TRAIN / train.loadImgs(image)[0]["file_name"]
        classes[name] = {"supports": [{"photo": str(photo), "mask": str(mask)}]}
    for name, entry in {"all": classes, **{name: {name: entry} for name, entry in classes.items()}}.items():
        # JSON is YAML.
        (folder / f"{name}.yaml").write_text(json.dumps({"classes": entry}))
    return classes


def five_at_once(data: Path, photos: int) -> dict[str, Any]:
    """Seconds of one run with five classes, and of five with one, on the same photos; and mIoU of both on those that
    have masks."""
    val = scenes(data, VAL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classes = list(project(data, folder, 5))
        (folder / "photos").mkdir()
        files = sorted((data / "coco_sample" / VAL).iterdir()) + sorted((data / "coco_sample" / TRAIN).iterdir())
        for file in files[:photos]:
            (folder / "photos" / file.name).symlink_to(file)
        together, _ = labelled(folder / "all", folder / "photos", "--project", str(folder / "all.yaml"))
        alone = {
            known: labelled(folder / known, folder / "photos", "--project", str(folder / f"{known}.yaml"))[0]
            for known in classes
        }
        counts = {way: np.zeros((len(classes), 2)) for way in ("together", "alone")}
        categories = {entry["name"]: entry["id"] for entry in val.loadCats(val.getCatIds())}
        for image in val.loadImgs(val.getImgIds()):
            mask = f"masks/{Path(image['file_name']).stem}.png"
            class_map = np.array(Image.open(folder / "all" / mask))
            for place, known in enumerate(classes):
                there = val.getAnnIds(image["id"], categories[known])
                truth = class_mask(val, image["id"], categories[known]) if there else np.zeros_like(class_map, bool)
                single = np.array(Image.open(folder / known / mask)) > 0
                for way, found in (("together", class_map == place + 1), ("alone", single)):
                    counts[way][place] += (found & truth).sum(), (found | truth).sum()
        seconds = sum(alone.values())
        return {
            "photos": photos,
            "classes": classes,
            "seconds_together": together,
            "seconds_alone": seconds,
            "share": together / seconds,
            **{f"miou_{way}": float((table[:, 0] / table[:, 1]).mean()) for way, table in counts.items()},
        }


def large_photos(data: Path, photos: int) -> dict[str, Any]:
    """Memory while photos of 12 megapixels are labelled with five classes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(data, folder, 5)
        (folder / "photos").mkdir()
        drawn = []
        for file in sorted((data / "coco_sample" / VAL).iterdir())[:8]:
            drawn.append(folder / file.name)
            load_photo(file).resize(MEGAPIXELS).save(drawn[-1], quality=90)
        for number in range(photos):
            # No links: a file is labelled once, by whatever path.
            shutil.copy(drawn[number % len(drawn)], folder / "photos" / f"{number:04d}.jpg")
        seconds, memory = labelled(folder / "out", folder / "photos", "--project", str(folder / "all.yaml"))
        if (done := len(list((folder / "out" / "masks").iterdir()))) != photos:
            raise SystemExit(f"{done} photos were labelled, not {photos}")
        quarters = np.array_split([mib for _, mib in memory], 4)
        return {
            "photos": photos,
            "seconds": seconds,
            "largest_mib": max(mib for _, mib in memory),
            "largest_mib_by_quarter": [float(quarter.max()) for quarter in quarters],
        }


class Remembering:
    """The model, which encodes a class's supports once."""

    def __init__(self, model: DSVLFSModel) -> None:
        self._model, self._supports = model, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_support(self, examples: Sequence[tuple[Photo, Photo]]) -> Support:
        key = tuple((str(photo), mask.tobytes()) for photo, mask in examples)
        if key not in self._supports:
            self._supports[key] = self._model.encode_support(examples)
        return self._supports[key]


def parts_of(
    asked: Sequence[AnyPrediction], size: tuple[int, int], power: float = 0
) -> list[tuple[int, np.ndarray, float]]:
    """Connected parts of each class's mask: the class's number, the part, and its mean probability, times a power of
    its share of the photo."""
    cuts: list[Cut] = [{"threshold": 0.5, "min_presence": 0} for _ in asked]
    class_map = np.zeros(size[::-1], np.uint8)
    settle(list(zip(asked, cuts)), class_map)
    found = []
    for number, prediction in enumerate(asked, 1):
        numbers, count = ndimage.label(class_map == number)
        probability = prediction.segmentation(0.5, min_presence=0).probability
        for part in range(1, count + 1):
            inside = numbers == part
            found.append((number, inside, float(probability[inside].mean() * inside.mean() ** power)))
    return found


def precision_of_objects(data: Path, photos: int) -> dict[str, Any]:
    """Mask AP on COCO's val scenes, each photo asked for the classes that are in it: of `instances`, of connected parts
    of the plain masks, and of connected parts of the closer look's."""
    train, val = scenes(data, TRAIN), scenes(data, VAL)
    model = Remembering(DSVLFSModel.from_pretrained("dsvlfs-tiny"))
    detections: dict[str, list[dict[str, Any]]] = defaultdict(list)
    images = sorted(val.getImgIds())[:photos]
    asked_for = 0
    for image in images:
        photo = load_photo(data / "coco_sample" / VAL / val.loadImgs(image)[0]["file_name"])
        there = sorted({entry["category_id"] for entry in val.loadAnns(val.getAnnIds(image))})
        samples, categories = [], []
        for category in there:
            for support in largest(train, category, SHOTS):
                file = data / "coco_sample" / TRAIN / train.loadImgs(support)[0]["file_name"]
                samples.append(Sample(file, class_mask(train, support, category), train.loadCats(category)[0]["name"]))
            if samples and samples[-1].class_name == val.loadCats(category)[0]["name"]:
                categories.append(category)
        if not categories:
            continue
        asked_for += len(categories)
        labeller = Labeller(model, instances=True, min_presence=0).fit(samples)
        labels = labeller.label(photo)
        found = [
            (entry.class_number, labels.object_map == place, entry.score)
            for place, entry in enumerate(labels.objects, 1)
        ]
        whole = labeller._ask(photo, range(len(categories)))
        views = views_of(*photo.size)
        closer = zip(*(labeller._ask(photo.crop(view), range(len(categories))) for view in views))
        looked = [CloserPrediction(first, views, more) for first, more in zip(whole, closer)]
        for way, entries in (
            ("instances", found),
            ("connected parts", parts_of(whole, photo.size)),
            ("connected parts, small ones worse", parts_of(whole, photo.size, SMALL_IS_WORSE)),
            ("connected parts of closer looks", parts_of(looked, photo.size)),
        ):
            for number, mask, score in entries:
                code = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
                detections[way].append(
                    {"image_id": image, "category_id": categories[number - 1], "segmentation": code, "score": score}
                )
    figures: dict[str, Any] = {"photos": len(images), "classes_asked_for": asked_for}
    for way, entries in detections.items():
        judged = COCOeval(val, val.loadRes(entries), "segm")
        judged.params.imgIds = images
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
        figures[way] = {
            "ap": 100 * judged.stats[0],
            "ap50": 100 * judged.stats[1],
            "ap75": 100 * judged.stats[2],
            "objects": len(entries),
        }
    return figures


def kills(number: int, seed: int) -> dict[str, Any]:
    """What `tests/labelling/kill_runs.py` says."""
    with tempfile.TemporaryDirectory() as folder:
        script = ROOT / "tests" / "labelling" / "kill_runs.py"
        done = subprocess.run(
            [sys.executable, str(script), folder, str(number), str(seed)], capture_output=True, text=True, check=False
        )
        return {"kills": number, "seed": seed, "said": done.stdout.strip() or done.stderr[-500:]}


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help="with coco_sample in it")
    parser.add_argument("--photos", type=int, default=100, help="of the run with five classes (default: 100)")
    parser.add_argument("--large", type=int, default=500, help="photos of 12 megapixels (default: 500)")
    parser.add_argument("--scenes", type=int, default=40, help="for the objects (default: 40)")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--parts", nargs="+", default=["objects", "classes", "memory", "kills"])
    parser.add_argument("--out", type=Path, help="JSON")
    given = parser.parse_args()
    ways = {
        "objects": lambda: precision_of_objects(given.data_root, given.scenes),
        "classes": lambda: five_at_once(given.data_root, given.photos),
        "memory": lambda: large_photos(given.data_root, given.large),
        "kills": lambda: kills(given.kills, given.seed),
    }
    figures = {}
    for part in given.parts:
        figures[part] = ways[part]()
        print(part, json.dumps(figures[part], indent=1), flush=True)
        if given.out:
            given.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
