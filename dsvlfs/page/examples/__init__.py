"""The example scenes: a support photo with the mask of one object, and a query photo with another of its class."""

import json
from dataclasses import dataclass
from pathlib import Path

from ...inference.photos import load_mask, load_photo
from ..supports import Draft

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """An entry of `examples.json`; the images are names of files beside it."""

    class_name: str
    description: str
    support_image: str
    support_mask: str
    query_image: str

    @property
    def shot(self) -> tuple[Path, Path]:
        """The support photo and its mask, as files."""
        return FOLDER / self.support_image, FOLDER / self.support_mask

    @property
    def query_file(self) -> Path:
        """The query photo."""
        return FOLDER / self.query_image

    def draft(self) -> Draft:
        """The support photo with its mask, for the page."""
        photo_file, mask_file = self.shot
        photo = load_photo(photo_file)
        return Draft(photo, load_mask(mask_file, photo.size), example=True)


EXAMPLES = [Example(**entry) for entry in json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))]
