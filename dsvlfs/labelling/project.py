"""What a labelling project asks for: classes, each with its supports, its name and how it is cut.

A project is written as a YAML file, a folder `classes/NAME/{photos,masks}`, COCO's JSON, or labelme's JSON files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..errors import InputError
from ..files import checked, read_text
from ..inference.checks import class_name_of, description_of
from .annotations import annotated_classes
from .photo_files import find_photos
from .supports import AtPoints, InBox, Mark, MaskFile, SupportPhoto

MOST_SUPPORTS = 5
"""Supports of a class at most, of those that an annotation file has."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class ProjectClass:
    """A class of a project.

    Args:
        name: such as 'red fox'.
        supports: none asks by the name alone.
        description: what it looks like.
        threshold, min_presence: of `dsvlfs.labelling.labeller.LabelClass`.
    """

    name: str
    supports: Sequence[SupportPhoto] = ()
    description: str | None = None
    threshold: float | None = None
    min_presence: float | None = None

    def __post_init__(self) -> None:
        """The name and the description on one line. Raises InputError where one cannot be used."""
        object.__setattr__(self, "name", class_name_of(self.name))
        object.__setattr__(self, "description", description_of(self.description) or None)

    def settings(self) -> dict[str, Any]:
        """What two runs must share to write into one folder; examples count by their content."""
        return {
            "description": self.description,
            "threshold": self.threshold,
            "min_presence": self.min_presence,
            "examples": [support.settings() for support in self.supports],
        }


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _numbers(value: Any) -> Any:
    """Pixels in YAML: a list is a tuple."""
    return tuple(value) if isinstance(value, list) else value


_Box = Annotated[tuple[Pixels, Pixels, Pixels, Pixels], BeforeValidator(_numbers)]
_Point = Annotated[tuple[Pixels, Pixels], BeforeValidator(_numbers)]


class _Support(_Entry):
    photo: str
    mask: str | None = None
    mask_value: int | None = None
    box: _Box | None = None
    points: list[_Point] | None = None
    beside: list[_Point] = []

    @model_validator(mode="after")
    def _marked_once(self) -> "_Support":
        given = [name for name in ("mask", "box", "points") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"the support {self.photo} needs one of mask, box and points")
        if self.mask_value is not None and not self.mask:
            raise ValueError(f"the support {self.photo} has a mask_value and no mask")
        if self.beside and not self.points:
            raise ValueError(f"the support {self.photo} has points beside the object and none on it")
        return self

    def read(self, root: Path) -> SupportPhoto:
        """With paths from a folder on."""
        mark: Mark
        if self.mask:
            mark = MaskFile(_path(root, self.mask), self.mask_value)
        elif self.box:
            mark = InBox(self.box)
        else:
            mark = AtPoints(tuple(self.points or ()), tuple(self.beside))
        return SupportPhoto(_path(root, self.photo), mark)


class _Class(_Entry):
    name: str | None = None
    description: str | None = None
    threshold: Fraction | None = None
    min_presence: Fraction | None = None
    supports: list[_Support] = []
    folder: str | None = None
    annotations: str | None = None
    label: str | None = None
    shots: Annotated[int, Field(ge=1)] = MOST_SUPPORTS

    def read(self, name: str, root: Path) -> ProjectClass:
        """With paths from a folder on."""
        supports = [support.read(root) for support in self.supports]
        if self.folder is not None:
            supports += _pairs(_path(root, self.folder))
        if self.annotations is not None:
            file, label = _path(root, self.annotations), self.label or name
            found = annotated_classes(file, self.shots)
            if label not in found:
                raise InputError(f"{file} annotates no '{label}'; it has {_listed(found)}.")
            supports += found[label]
        return ProjectClass(name, supports, self.description, self.threshold, self.min_presence)


class _Project(_Entry):
    classes: dict[str, _Class | None] | list[_Class | str]


def read_project(path: Path, shots: int | None = None) -> list[ProjectClass]:
    """Reads a project.

    Args:
        path: a YAML file; a folder with `classes/NAME/photos` and `classes/NAME/masks`, or the folder `classes` itself;
            COCO's JSON; labelme's JSON, or a folder of them.
        shots: supports of a class at most, of those that an annotation file has; None takes 5. The largest are taken.

    Returns:
        Its classes, at least one.

    Raises:
        InputError: it is none of these, or names what is not there.
    """
    shots = shots or MOST_SUPPORTS
    if path.is_dir():
        root = path / "classes" if (path / "classes").is_dir() else path
        classes = [_class_folder(folder) for folder in sorted(root.iterdir()) if (folder / "photos").is_dir()]
        if not classes and any(path.glob("*.json")):
            classes = [ProjectClass(name, supports) for name, supports in annotated_classes(path, shots).items()]
        if not classes:
            raise InputError(
                f"The folder {path} is no project; give one with classes/NAME/photos and classes/NAME/masks, or with "
                "labelme's JSON files."
            )
    elif path.suffix.lower() == ".json":
        classes = [ProjectClass(name, supports) for name, supports in annotated_classes(path, shots).items()]
    else:
        classes = _yaml_classes(path)
    if not classes:
        raise InputError(f"The project {path} has no classes; give at least one.")
    return classes


def _yaml_classes(path: Path) -> list[ProjectClass]:
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The project {path} is not valid YAML ({error}); mend it.") from None
    if isinstance(content, dict) and isinstance(content.get("classes"), dict):
        for name in content["classes"]:
            if not isinstance(name, str):
                raise InputError(f"The project {path} has a class {name!r} that YAML takes for no text; quote it.")
    project = checked(content, _Project, f"The project {path}")
    entries: list[tuple[str, _Class]] = []
    if isinstance(project.classes, dict):
        entries = [(entry.name or key if entry else key, entry or _Class()) for key, entry in project.classes.items()]
    else:
        for number, entry in enumerate(project.classes, 1):
            entry = _Class(name=entry) if isinstance(entry, str) else entry
            if not entry.name:
                raise InputError(f"Class {number} of the project {path} has no name; give one.")
            entries.append((entry.name, entry))
    classes = [entry.read(" ".join(name.split()), path.parent) for name, entry in entries]
    names = [entry.name for entry in classes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"The project {path} has the class '{twice[0]}' twice; give it once.")
    return classes


def _class_folder(folder: Path) -> ProjectClass:
    """A class of `classes/NAME`: `photos`, `masks`, and `class.yaml` with what else is to be known."""
    more = folder / "class.yaml"
    entry = _Class()
    if more.is_file():
        try:
            entry = checked(yaml.safe_load(read_text(more)), _Class, str(more))
        except yaml.YAMLError as error:
            raise InputError(f"{more} is not valid YAML ({error}); mend it.") from None
    known = entry.read(entry.name or folder.name, folder)
    return ProjectClass(
        known.name, [*known.supports, *_pairs(folder)], known.description, known.threshold, known.min_presence
    )


def _pairs(folder: Path) -> list[SupportPhoto]:
    """The photos of `photos` with the masks of `masks` that have their stems."""
    if not (folder / "photos").is_dir() or not (folder / "masks").is_dir():
        raise InputError(f"The folder {folder} has not both photos and masks in it; make these two folders.")
    photos, masks = find_photos(folder / "photos"), find_photos(folder / "masks")
    by_stem: dict[str, Path] = {}
    for mask in masks:
        stem = mask.relative_to(folder / "masks").with_suffix("").as_posix()
        if stem in by_stem:
            raise InputError(f"{by_stem[stem]} and {mask} are masks of one photo; remove one.")
        by_stem[stem] = mask
    pairs = []
    for photo in photos:
        stem = photo.relative_to(folder / "photos").with_suffix("").as_posix()
        if stem not in by_stem:
            raise InputError(f"The photo {photo} has no mask in {folder / 'masks'}; add {stem}.png there.")
        pairs.append(SupportPhoto(photo, MaskFile(by_stem[stem])))
    if not pairs:
        raise InputError(f"The folder {folder / 'photos'} holds no photos; add some, with masks of the same names.")
    return pairs


def _path(root: Path, name: str) -> Path:
    try:
        return root / Path(name).expanduser()
    except RuntimeError:  # no home
        return root / name


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    shown = list(names)[:10]
    return ", ".join(shown) + (", …" if len(names) > 10 else "")
