"""Kills runs of `dsvlfs label` at random moments, and changes, adds and deletes photos in between.

    python tests/labelling/kill_runs.py FOLDER KILLS SEED

Prints what was lost or done twice; nothing is to be. The model is a stand-in, so that it is the record that is tried.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
from colour_model import ColourModel
from PIL import Image
from pycocotools.coco import COCO

from dsvlfs.cli import main
from dsvlfs.labelling import request

PHOTOS = 24


class SlowModel(ColourModel):
    def segment(self, *arguments: object, **options: object) -> object:
        time.sleep(0.03)
        return super().segment(*arguments, **options)


request.DSVLFSModel = SlowModel


def draw(file: Path, chance: random.Random) -> None:
    """A red block on noise."""
    noise = np.random.default_rng(chance.randrange(2**32)).integers(0, 120, (60, 80, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    left = chance.randrange(60)
    image.paste((255, 0, 0), (left, 10, left + 20, 50))
    image.save(file)


def arguments(folder: Path, out: Path) -> list[str]:
    support = folder / "support.png"
    given = ["--class-name", "red", "--support", support, support, "--photos", folder / "photos", "--out", out]
    return ["label", *map(str, given), "--formats", "labelme", "yolo"]


def start(folder: Path, out: Path) -> int:
    """Forks a run."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os._exit(main(arguments(folder, out)))
    return pid


def lines(out: Path) -> list[dict]:
    found = []
    for file in out.glob("labels-*.jsonl"):
        for line in file.read_text().split("\n"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def try_it(folder: Path, kills: int, seed: int) -> list[str]:
    """Returns what went wrong."""
    chance, faults = random.Random(seed), []
    photos, out = folder / "photos", folder / "out"
    photos.mkdir(parents=True)
    support = Image.new("RGB", (20, 20))
    support.paste((255, 0, 0), (5, 5, 15, 15))
    support.save(folder / "support.png")
    for number in range(PHOTOS):
        draw(photos / f"{number:03d}.png", chance)
    added = PHOTOS
    for kill in range(kills):
        kept = {
            line["photo"]: (line["digest"], (out / line["mask"]).stat().st_mtime_ns)
            for line in lines(out)
            if (photos / line["photo"]).is_file() and line["digest"] == digest(photos / line["photo"])
        }
        runs = [start(folder, out) for _ in range(1 + kill % 2)]
        time.sleep(chance.uniform(0, 2.5))
        for pid in runs:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        now = {line["photo"]: line for line in lines(out)}
        for name, (content, changed) in kept.items():
            if name not in now or now[name]["digest"] != content:
                faults.append(f"kill {kill}: the label of {name} is lost")
            elif (out / now[name]["mask"]).stat().st_mtime_ns != changed:
                faults.append(f"kill {kill}: {name} was done again")
        for line in now.values():
            try:
                with Image.open(out / line["mask"]) as mask:
                    mask.load()
                with Image.open(out / line["overlay"]) as overlay:
                    overlay.load()
            except OSError as error:
                faults.append(f"kill {kill}: {line['photo']} has a line and no whole files ({error})")
        names = sorted(photos.iterdir())
        draw(chance.choice(names), chance)
        draw(photos / f"{added:03d}.png", chance)
        added += 1
        chance.choice(names).unlink(missing_ok=True)
    assert os.waitpid(start(folder, out), 0)[1] == 0
    assert main(arguments(folder, folder / "undisturbed")) == 0
    done = lines(out)
    if sorted(line["photo"] for line in done if (photos / line["photo"]).is_file()) != sorted(os.listdir(photos)):
        faults.append("photos have no line, or several")
    for line in done:
        photo = photos / line["photo"]
        if photo.is_file():
            if line["digest"] != digest(photo):
                faults.append(f"{photo.name} has the label of another content")
            for part in (line["mask"], line["overlay"]):
                if (out / part).read_bytes() != (folder / "undisturbed" / part).read_bytes():
                    faults.append(f"{part} is not as in an undisturbed run")
    documents = [COCO(folder / name / "annotations.json").dataset for name in ("out", "undisturbed")]
    if documents[0] != documents[1]:
        faults.append("annotations.json is not as in an undisturbed run")
    stems = {file.stem for file in photos.iterdir()}
    written = [
        {file.relative_to(folder / name).as_posix() for file in (folder / name).rglob("*") if file.is_file()}
        for name in ("out", "undisturbed")
    ]
    left = [name for name in written[0] - written[1] if not name.startswith((".work/", "labels-"))]
    # Masks of photos that were deleted stay.
    left = [name for name in left if name.split("/")[0] not in ("masks", "overlays") or Path(name).stem in stems]
    if left:
        faults.append(f"files are left over: {sorted(left)[:5]}")
    return faults


if __name__ == "__main__":
    wrong = try_it(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print("\n".join(wrong) or "nothing lost, nothing done twice")
    sys.exit(bool(wrong))
