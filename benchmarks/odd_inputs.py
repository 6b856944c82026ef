"""Thousands of odd inputs: how many give a result, how many one sentence, and how many something else; the time and the
memory that they take. Each is given in a process of its own, a copy of one that has the tiny model loaded."""

import argparse
import io
import json
import math
import os
import platform
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dsvlfs import BaseNotAvailableError, DSVLFSModel, InputError, Support
from dsvlfs.cli import main as command
from dsvlfs.data.episodes import load_episodes
from dsvlfs.data.label_maps import load_label_maps
from dsvlfs.data.named_sets import load_index
from dsvlfs.data.photos import load_coco, load_cutouts, load_photo_folder
from dsvlfs.hub.checkpoint_files import PACKAGED_CHECKPOINTS
from dsvlfs.inference.photos import load_mask, load_photo
from dsvlfs.inference.selection import mask_at_points, mask_in_box
from dsvlfs.page.examples import EXAMPLES

LONGEST, SECONDS, GIB = 300, 5, 1.5
"""The bars: characters of a sentence, seconds and memory of an input."""

HANGS = 60  # seconds after which an input is given up
Call = Callable[[], object]
SHARES = {
    "photo files": 0.24,
    "photo objects": 0.10,
    "large photos": 0.01,
    "masks": 0.16,
    "paths": 0.05,
    "names": 0.08,
    "calls": 0.09,
    "metadata and episodes": 0.12,
    "COCO, LVIS and label maps": 0.10,
    "checkpoints and bases": 0.05,
}


class Odd:
    """Makes odd inputs.

    Args:
        seed: of all draws.
        folder: for files; each input has it for itself.
        model: the tiny one.
        support: of the first example.
    """

    def __init__(self, seed: int, folder: Path, model: DSVLFSModel, support: Support) -> None:
        self.random, self.folder, self.model, self.support = random.Random(seed), folder, model, support

    def make(self, kind: str) -> Call:
        """One of a kind, as a call that gives it to the product."""
        return {
            "photo files": self.photo_file,
            "photo objects": self.photo_object,
            "large photos": self.large_photo,
            "masks": self.mask,
            "paths": self.path,
            "names": self.name,
            "calls": self.call,
            "metadata and episodes": self.metadata,
            "COCO, LVIS and label maps": self.annotations,
            "checkpoints and bases": self.checkpoint,
        }[kind]()

    # Values ----------------------------------------------------------------------------------------------------------

    def scalar(self) -> Any:
        """Of any type that JSON has, and some that it has not."""
        draw = self.random
        return draw.choice(
            [
                *(None, True, 0, 1, -1, 2**31, 10**9, 10**40, 10**4000, 0.5, -0.0, math.nan, math.inf, 1e308),
                *("", " ", "a", "\ud800", "a\0b", "\u2028", "\ufeff", "x" * 5000, "../../etc/passwd", "1", "NaN"),
                *("<image>", "{class_name:>1000000000}", "\u200b", "é" * 100, "\U0001f427" * 60),
            ]
        )

    def anything(self, depth: int = 2) -> Any:
        """A value, or lists and objects of values."""
        draw = self.random
        if depth == 0 or draw.random() < 0.6:
            return self.scalar()
        count = draw.randrange(3)
        if draw.random() < 0.5:
            return [self.anything(depth - 1) for _ in range(count)]
        return {str(self.scalar())[:9]: self.anything(depth - 1) for _ in range(count)}

    def changed(self, good: dict[str, Any]) -> dict[str, Any]:
        """With a field changed, left out or added."""
        name = self.random.choice([*good, "more"])
        result = {**good, name: self.anything()}
        if self.random.random() < 0.2:
            del result[self.random.choice(list(result))]
        return result

    def damaged(self, content: bytes) -> bytes:
        """Cut short, overwritten in places, or with a part twice."""
        draw, changed = self.random, bytearray(content)
        for _ in range(draw.choice([0, 1, 4, 30])):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        if draw.random() < 0.3:
            start, stop = sorted(draw.randrange(len(changed)) for _ in range(2))
            changed[stop:stop] = changed[start:stop]
        return bytes(changed[: draw.randrange(len(changed) + 1)] if draw.random() < 0.4 else changed)

    def image(self) -> Image.Image:
        """Of any mode and shape."""
        draw = self.random
        size = draw.choice([(64, 48), (1, 1), (1, 500), (900, 3), (48, 64), (257, 255)])
        noise = np.random.default_rng(draw.randrange(10**6)).integers(0, 255, (size[1], size[0], 4), np.uint8)
        mode = draw.choice(["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "LA", "PA", "RGBa", "I;16"])
        rgba = Image.fromarray(noise)
        try:
            image = rgba.convert("RGB").convert(mode) if mode not in ("I;16", "PA") else rgba.convert("L").convert(mode)
        except ValueError:
            image = rgba
        if draw.random() < 0.2:
            image.info["transparency"] = draw.randrange(256)
        return image

    def array(self) -> np.ndarray:
        """Of any type, shape and range."""
        draw = self.random
        shape = draw.choice([(48, 64), (48, 64, 3), (48, 64, 4), (48, 64, 2), (3, 48, 64), (0, 5), (), (7,), (1, 1, 1)])
        values = np.random.default_rng(draw.randrange(10**6)).random(shape) * draw.choice([1, 2, 255, 4095, 65535, 1e9])
        values -= draw.choice([0, 0, 0, 1])
        if draw.random() < 0.15 and values.size:
            values.flat[0] = draw.choice([math.nan, math.inf])
        with np.errstate(all="ignore"):
            return values.astype(
                draw.choice(["?", "u1", "u2", "u4", "i1", "i4", "i8", "f2", "f4", "f8", "c8", "O", "U3"])
            )

    # Kinds -----------------------------------------------------------------------------------------------------------

    def use(self, source: Any) -> Call:
        """A photo as a query or as a support's, for the model; or only read, which is quicker."""
        draw = self.random.random()
        if draw < 0.06:
            return lambda: self.model.segment(source, "penguin", support=self.support)
        if draw < 0.1:
            return lambda: self.model.encode_support([(source, EXAMPLES[0].shot[1])])
        return lambda: load_photo(source)

    def photo_file(self) -> Call:
        """A file of any format, often damaged."""
        draw, file, image = self.random, self.folder / "photo", self.image()
        kind, options = draw.choice(
            [
                *(("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("GIF", {}), ("BMP", {})),
                *(("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("TGA", {}), ("PCX", {})),
                *(("AVIF", {}), ("JPEG2000", {}), ("ICO", {}), ("PDF", {}), ("EPS", {}), ("SGI", {})),
            ]
        )
        stream = io.BytesIO()
        try:
            image.save(stream, kind, **options)
        except (OSError, ValueError, KeyError, TypeError):
            image.info.clear()
            image.convert("RGB").save(stream, "PNG")
        content = stream.getvalue()
        file.write_bytes(content if draw.random() < 0.2 else self.damaged(content))
        return self.use(file)

    def photo_object(self) -> Call:
        """An image, an array, or what is neither."""
        draw = self.random
        source = draw.choice([self.image, self.array, self.array, self.anything])()
        return self.use(source)

    def large_photo(self) -> Call:
        """Up to 180 million pixels, in a small file."""
        draw, file = self.random, self.folder / "large"
        mode = draw.choice(["1", "L", "RGB", "RGBA", "P", "I;16"])
        width, height = draw.choice([(8000, 5000), (8160, 6120), (13350, 13350), (60_000, 700), (6000, 4000)])
        kind = draw.choice(["PNG", "JPEG", "TIFF", "WEBP"])
        image = Image.new(mode, (width, height))
        if kind == "JPEG" or (kind == "WEBP" and width < 16_000):
            image = image.convert("RGB")
        else:
            kind = "PNG" if kind == "WEBP" else kind
        image.save(file, kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
        if draw.random() < 0.5:
            return lambda: self.model.segment(file, "penguin", support=self.support)
        return lambda: load_mask(file, (width, height))

    def mask(self) -> Call:
        """A mask that is none, or one of any values."""
        draw = self.random
        shape = Image.new("L", (64, 48))
        shape.paste(draw.randrange(1, 256), (10, 10, 40, 30))
        source = draw.choice(
            [
                *(self.array, self.image, self.anything, lambda: shape, lambda: np.asarray(shape) / 255),
                *(lambda: np.asarray(shape).astype(np.uint16) * 257, lambda: np.asarray(shape) > 0),
                *(
                    lambda: np.ones((48, 64)),
                    lambda: np.random.default_rng(0).random((48, 64)),
                    lambda: self.saved(shape),
                ),
            ]
        )()
        photo = Image.new("RGB", (64, 48), "gray")
        if draw.random() < 0.05:
            return lambda: self.model.encode_support([(photo, source)])
        return lambda: load_mask(source, (64, 48))

    def saved(self, image: Image.Image) -> Path:
        """As a file that a program may have damaged."""
        file, stream = self.folder / "mask", io.BytesIO()
        image.save(stream, self.random.choice(["PNG", "JPEG", "TIFF", "GIF"]))
        file.write_bytes(stream.getvalue() if self.random.random() < 0.7 else self.damaged(stream.getvalue()))
        return file

    def path(self) -> Call:
        """A path that leads nowhere, to a pipe, in a circle."""
        draw, folder = self.random, self.folder
        os.mkfifo(folder / "pipe.png")
        os.symlink("loop.png", folder / "loop.png")
        (folder / "empty.png").touch()
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
        place = draw.choice(
            [
                *("pipe.png", "loop.png", "empty.png", ".", "..", "a\0b.png", "x" * 5000, "x/" * 3000, "empty.png/a"),
                *(os.fsdecode(b"caf\xe9.png"), "\ud800", "a\nb.png", "", "absent.png", "/dev/zero", "/proc/self/mem"),
            ]
        )
        odd, good = str(folder / place), str(EXAMPLES[0].query_file)
        if draw.random() < 0.5:
            return lambda: load_photo(odd)
        words = [good, odd] if draw.random() < 0.5 else [odd, good]
        return _command(
            "segment", "--class-name", "fox", "--support", *words, "--query", good, "--out", str(folder / "o")
        )

    def name(self) -> Call:
        """A name or description of any characters, often long."""
        draw = self.random
        characters = [
            chr(draw.choice([draw.randrange(32, 127), draw.randrange(0x110000)]))
            for _ in range(draw.choice([1, 9, 250, 2500]))
        ]
        odd = draw.choice(["".join(characters), self.scalar(), self.anything(), "<SEM_prompt>", " ball \n"])
        if draw.random() < 0.5:
            return lambda: self.model.processor.question([(odd, None)])
        return lambda: self.model.processor.question([("fox", odd)])

    def call(self) -> Call:
        """Arguments of any types."""
        draw, photo = self.random, Image.new("RGB", (64, 48), "gray")
        odd, model = self.anything(), self.model
        option = draw.choice(
            ["support", "description", "mode", "threshold", "min_presence", "aggregation", "batch_size"]
        )
        numbers = tuple(draw.choice([0, 10, 63, -5, 10**9, math.nan, "9"]) for _ in range(draw.choice([2, 3, 4])))
        pair = (photo, Image.new("L", (64, 48)))
        return draw.choice(
            [
                lambda: model.segment("absent.png", "fox", **{option: odd}),
                lambda: model.segment(odd, "fox"),
                lambda: model.encode_support(odd),
                lambda: model.encode_support(pair),
                lambda: model.encode_support([(*pair, "fox")]),
                lambda: mask_in_box(model, photo, draw.choice([numbers, odd])),
                lambda: mask_at_points(model, photo, draw.choice([[numbers], odd])),
                lambda: model.predict(photo, "fox", modes=odd),
                lambda: DSVLFSModel.from_pretrained(odd if not isinstance(odd, str) else f"./{odd}"),
            ]
        )

    def metadata(self) -> Call:
        """`metadata.jsonl` and files of episodes of any content."""
        draw, folder = self.random, self.folder
        Image.new("RGBA", (9, 9)).save(folder / "a.png")
        photo = {"image": "a.png", "mask": "a.png", "name": "fox", "synonyms": ["reynard"], "category": "animal/fox"}
        episode = {"class_name": "fox", "query": "a", "support": ["a"]}
        kinds = [episode, episode | {"position": 0, "distractors": ["a"] * 3}, episode | {"category_id": 1, "query": 1}]
        kinds.append(episode | {"data_set": draw.choice(["folder", "gnu"]), "fold": None, "seed": 0})
        lines, episodes = [photo], [draw.choice(kinds)]
        if draw.random() < 0.6:
            lines = [draw.choice([photo, self.changed(photo), self.anything()]) for _ in range(draw.randrange(4))]
        else:
            episodes = [self.changed(episodes[0])] * draw.randrange(3)
        (folder / "metadata.jsonl").write_bytes(self.text(lines))
        (folder / "episodes.jsonl").write_bytes(self.text(episodes))
        return draw.choice(
            [
                lambda: load_photo_folder(folder),
                lambda: load_cutouts(folder),
                lambda: load_episodes(folder, folder / "episodes.jsonl")[0],
                lambda: load_index("folder", folder, "test"),
            ]
        )

    def text(self, lines: list[Any]) -> bytes:
        """JSON lines, as careless programs write them."""
        draw = self.random
        text = "\n".join(json.dumps(line) if not _is_huge(line) else "9" * 5000 for line in lines)
        odd = draw.choice(["", "", "", "\n\n", "\ufeff", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", '"\u2028"'])
        content = (odd + text if draw.random() < 0.5 else text + odd).encode("utf-8", "surrogatepass")
        return self.damaged(content) if content and draw.random() < 0.2 else content

    def annotations(self) -> Call:
        """COCO, LVIS, or label maps of any content."""
        draw, folder = self.random, self.folder
        if draw.random() < 0.3:
            for part in ("images", "labels"):
                (folder / part).mkdir()
                image = self.image()
                if image.mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
                    image.info.clear()
                    image.save(folder / part / "a.png")
            (folder / "classes.json").write_bytes(self.text([draw.choice([{"1": "road"}, self.anything()])]))
            return lambda: load_label_maps(folder)
        number = draw.choice([30, 0, -1, 10**9, 10**30, math.nan, "30"])
        image = {"id": 1, "file_name": "a.jpg", "height": number, "width": 40, "coco_url": "x/train2017/a.jpg"}
        shape = draw.choice(
            [
                *("x", None, {}, [], [[1, 2]], [[2, 2, 9, 2, 9, 9]], [[1e300] * 6], [[math.nan] * 6], [[0] * 7]),
                *({"counts": [1], "size": [30, 40]}, {"counts": "d0" * 9, "size": [30, 40]}, {"counts": [-1, 1201]}),
                *({"counts": [1200], "size": [10**9, 1]}, {"counts": "zzz", "size": [30, 40]}, self.anything()),
            ]
        )
        content: dict[str, Any] = {
            "images": [image, *([self.changed(image)] if draw.random() < 0.2 else [])],
            "annotations": [{"image_id": 1, "category_id": 1, "segmentation": shape}],
            "categories": [{"id": 1, "name": "person"}],
        }
        part = draw.choice(list(content))
        if draw.random() < 0.3:
            content[part] = draw.choice([self.anything(), [self.anything()], [self.changed(content[part][0])]])
        (folder / "annotations").mkdir()
        (folder / "train2017").mkdir()
        for name in ("instances_v", "instances_train2017", "lvis_v1_val"):
            (folder / "annotations" / f"{name}.json").write_bytes(self.text([content]))
        os.environ["DSVLFS_CACHE"] = str(folder / "cache")  # of the indices
        return draw.choice(
            [
                lambda: load_coco(folder, "v"),
                lambda: load_index("lvis-92i", folder, "test"),
                lambda: load_index("coco-20i", folder, "train"),
            ]
        )

    def checkpoint(self) -> Call:
        """A checkpoint or a base with a changed config, tensors or tokenizer."""
        draw, packaged = self.random, PACKAGED_CHECKPOINTS["dsvlfs-tiny"]
        folder = self.folder / "checkpoint"
        folder.mkdir()
        for file in packaged.iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "config.json").read_bytes())
        if draw.random() < 0.7:
            changed = draw.choice([self.changed(config), self.changed(config), self.anything()])
            (folder / "config.json").write_bytes(self.text([changed]))
        else:
            file = folder / draw.choice(["model.safetensors", "config.json"])
            file.write_bytes(self.damaged(file.read_bytes()))
        return lambda: DSVLFSModel.from_pretrained(folder)


def _is_huge(value: Any) -> bool:
    try:
        json.dumps(value)
        return False
    except ValueError:  # a number of more digits than Python writes
        return True


def _command(*words: str) -> Call:
    """A command; what it says on standard error is its sentence."""

    def run() -> object:
        told = io.StringIO()
        with redirect_stderr(told), redirect_stdout(io.StringIO()):
            status = command(list(words))
        if status == 2:
            raise InputError(told.getvalue().strip().removeprefix("dsvlfs: "))
        return status

    return run


def give(call: Call) -> tuple[str, str, float, float]:
    """Gives an input in a process of its own: what came of it, what was said, seconds, and memory at the peak (GiB)."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1), os.dup2(devnull, 2)
        started = time.perf_counter()
        try:
            call()
            outcome = "result", ""
        except (InputError, BaseNotAvailableError) as error:
            outcome = "sentence", str(error)
        except BaseException as error:
            outcome = "else", f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        os.write(writing, json.dumps([outcome[0], outcome[1][:2000], seconds]).encode())
        os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + HANGS
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    _, status, used = os.wait4(process, 0)
    said = b""
    while part := os.read(reading, 65_536):
        said += part
    os.close(reading)
    memory = used.ru_maxrss / 2**20
    if not said:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        return "else", "given up" if number == signal.SIGKILL else f"ended by signal {number}", HANGS, memory
    kind, text, _ = json.loads(said)
    # Processor time: the machine may be busy with something else.
    seconds = used.ru_utime + used.ru_stime
    if kind == "sentence" and not (len(text) <= LONGEST and text.isprintable()):
        kind = "else"
    return kind, text, seconds, memory


def inputs(count: int, seed: int, model: DSVLFSModel) -> Iterator[tuple[str, str, str, str, float, float]]:
    """Every input's name and kind, and what came of it."""
    support = model.encode_support([EXAMPLES[0].shot])
    for kind, share in SHARES.items():
        for number in range(round(count * share)):
            with tempfile.TemporaryDirectory() as folder:
                cache = os.environ.get("DSVLFS_CACHE")
                call = Odd(hash_of(seed, kind, number), Path(folder), model, support).make(kind)
                yield (f"{kind} {number}", kind, *give(call))
                os.environ.pop("DSVLFS_CACHE", None) if cache is None else os.environ.update(DSVLFS_CACHE=cache)


def hash_of(seed: int, kind: str, number: int) -> int:
    """The same in every process."""
    return seed * 10**6 + number * 101 + sum(kind.encode())


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="of inputs (default: 3000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SHARES, help="this kind alone")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    if arguments.only:
        SHARES.update({kind: float(kind == arguments.only) for kind in SHARES})
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    model = DSVLFSModel.from_pretrained()
    model.segment(EXAMPLES[0].query_file, "penguin")
    rows, wrong = {kind: Counter() for kind in SHARES}, []
    slowest, largest = dict.fromkeys(SHARES, 0.0), dict.fromkeys(SHARES, 0.0)
    for name, kind, outcome, said, seconds, memory in inputs(arguments.count, arguments.seed, model):
        rows[kind][outcome] += 1
        slowest[kind], largest[kind] = max(slowest[kind], seconds), max(largest[kind], memory)
        rows[kind]["slow"] += seconds > SECONDS
        rows[kind]["heavy"] += memory > GIB
        if outcome == "else" or seconds > SECONDS or memory > GIB:
            wrong.append(
                {"input": name, "outcome": outcome, "said": said[:400], "s": round(seconds, 2), "gib": round(memory, 2)}
            )
            print(json.dumps(wrong[-1]), file=sys.stderr, flush=True)
    titles = f"{'result':>8}{'sentence':>10}{'else':>6}{'over 5 s':>10}{'over 1.5 GiB':>14}"
    print(f"{'':<28}{titles}{'slowest':>9}{'largest':>9}")
    total: Counter = Counter()
    for kind, counts in rows.items():
        total += counts
        figures = (
            f"{counts['result']:>8}{counts['sentence']:>10}{counts['else']:>6}{counts['slow']:>10}{counts['heavy']:>14}"
        )
        print(f"{kind:<28}{figures}{slowest[kind]:>7.2f} s{largest[kind]:>8.2f}")
    print(
        f"{'all':<28}{total['result']:>8}{total['sentence']:>10}{total['else']:>6}{total['slow']:>10}{total['heavy']:>14}"
    )
    result = {
        "machine": f"{platform.machine()}, 1 thread, torch {torch.__version__}",
        "memory_before_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "kinds": {kind: dict(counts) for kind, counts in rows.items()},
        "slowest_s": {kind: round(value, 2) for kind, value in slowest.items()},
        "largest_gib": {kind: round(value, 2) for kind, value in largest.items()},
        "wrong": wrong,
    }
    print(json.dumps({key: result[key] for key in ("machine", "memory_before_gib")}))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
