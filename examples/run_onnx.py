"""Segments a photo by what `dsvlfs export --onnx` wrote, with ONNX Runtime, NumPy and Pillow alone: no PyTorch.

    dsvlfs export --onnx exported --class-name penguin
    python examples/run_onnx.py exported penguin_query.jpg mask.png --class-name penguin \
        --support penguin_support.jpg penguin_support_mask.png

A reader of your own, in any language, does what is done here.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


class Exported:
    """An exported checkpoint.

    Args:
        folder: that `dsvlfs export --onnx` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        graphs = self.manifest["graphs"].items()
        self._sessions = {name: onnxruntime.InferenceSession(folder / graph["file"]) for name, graph in graphs}

    def run(self, graph: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A graph's outputs, by name, of those of the values that it takes."""
        session = self._sessions[graph]
        wanted = {entry.name: values[entry.name] for entry in session.get_inputs()}
        return dict(zip((entry.name for entry in session.get_outputs()), session.run(None, wanted)))

    def pixels(self, photo: Image.Image, kind: str) -> dict[str, np.ndarray]:
        """A photo as the encoders see it; `kind` is "query" or "support"."""
        seen = {}
        for encoder in ("image", "vlm"):
            how, side = self.manifest[encoder], self.manifest[kind][f"{encoder}_side"]
            resized = photo.resize((side, side), Image.Resampling[how["resample"].upper()])
            values = (np.asarray(resized, np.float32) / 255 - np.float32(how["mean"])) / np.float32(how["std"])
            seen[f"{encoder}_pixels"] = values.transpose(2, 0, 1)[None].copy()
        return seen

    def encode_support(self, photo: Image.Image, mask: np.ndarray) -> dict[str, np.ndarray]:
        """A support photo with its mask, bool (height, width); seen around the mask."""
        settings = self.manifest["support"]
        seen = {f"whole_{name}": values for name, values in self.pixels(photo, "query").items()}
        seen["whole_mask"] = _square(mask, self.manifest["query"]["image_side"])
        if settings["context"] is not None:
            box = _around(mask, settings["context"])
            photo, mask = photo.crop(box), mask[box[1] : box[3], box[0] : box[2]]
        seen |= self.pixels(photo, "support") | {"mask": _square(mask, settings["image_side"])}
        return self.run("support", seen)  # which takes the whole photo where the checkpoint reads it

    def segment(
        self, photo: Image.Image, supports: list[dict[str, np.ndarray]], class_name: str | None = None
    ) -> np.ndarray:
        """The class's mask in a photo, bool (height, width)."""
        values = self.run("query", self.pixels(photo, "query"))
        values |= {name: np.concatenate([support[name] for support in supports]) for name in supports[0]}
        dim = values["embedding"].shape[1]
        prompt = np.zeros(dim) if class_name is None else self.manifest["names"][class_name]
        values["semantic_prompt"] = np.asarray(prompt, np.float32)[None]
        values |= self.run("matcher", values)
        trust = self.manifest["name_trust"]
        heard = class_name is not None and (trust is None or values["name_fit"][0] >= trust)
        values["name_heard"] = np.asarray([heard], np.float32)
        logits = Image.fromarray(self.run("decoder", values)["logits"][0])
        return np.asarray(logits.resize(photo.size, Image.Resampling.BILINEAR)) >= 0


def _square(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask as shares (1, side, side) of what the encoder sees."""
    square = Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX)
    return np.asarray(square, np.float32)[None] / 255


def _around(mask: np.ndarray, context: float) -> tuple[int, int, int, int]:
    """Square of `context` times the longer side of the mask's box, cut at the photo's edge."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, right, top, bottom = xs[0], xs[-1] + 1, ys[0], ys[-1] + 1
    half = max(right - left, bottom - top) * context / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    height, width = mask.shape
    far = int(min(width, np.ceil(x + half))), int(min(height, np.ceil(y + half)))
    return int(max(0, x - half)), int(max(0, y - half)), *far


def main() -> None:
    """Writes a mask of nought and 255."""
    parser = argparse.ArgumentParser(description="Segment a photo without PyTorch.")
    parser.add_argument("exported", type=Path, help="folder that dsvlfs export wrote")
    parser.add_argument("query", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--support", nargs=2, type=Path, action="append", required=True, metavar=("PHOTO", "MASK"))
    parser.add_argument("--class-name", help="one of those that were exported")
    arguments = parser.parse_args()
    exported = Exported(arguments.exported)
    supports = [
        exported.encode_support(Image.open(photo).convert("RGB"), np.asarray(Image.open(mask).convert("L")) > 127)
        for photo, mask in arguments.support
    ]
    mask = exported.segment(Image.open(arguments.query).convert("RGB"), supports, arguments.class_name)
    Image.fromarray(mask.astype(np.uint8) * 255).save(arguments.out)


if __name__ == "__main__":
    main()
