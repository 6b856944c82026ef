"""Whether the semantic prompts and the looks of different classes stay apart, and whether names find their photos.

Where a checkpoint's prompt does not depend on the photo, all that varies inside a class is how it is worded.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from ...data.episodes import Episode
from ...data.schemas import NamedPhoto
from ...errors import InputError
from ...files import read_json_lines
from ...inference.photos import load_mask, load_photo
from ...modeling import DSVLFSModel
from .plots import as_picture, colours, new_figure
from .report import Report, Table

try:
    from matplotlib.patches import Patch
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
except ImportError as error:
    raise InputError("This analysis needs scikit-learn; install it with: pip install 'dsvlfs[analyze]'") from error

MIXED = 0.25
"""A class mixes with another where at least this share of its points, and two of them, have their nearest neighbour in
it."""


@dataclass(frozen=True)
class Wording:
    """A way to ask for a class.

    Args:
        kind: "class name", "photo's name", "synonym" or "definition", which comes with the name.
        name, description: as the model is given them.
    """

    kind: str
    name: str
    description: str | None = None


@dataclass(frozen=True)
class Item:
    """A photo of a class.

    Args:
        class_name: of the episodes.
        group: of points that are no evidence for each other: the same photo.
        read: the photo and its mask.
        wordings: of what it shows, the class's name first.
    """

    class_name: str
    group: str
    read: Callable[[], tuple[Image.Image, np.ndarray]]
    wordings: Sequence[Wording]


@dataclass(frozen=True)
class Points:
    """Vectors of unit length (points, prompt_dim), and of each its class, its group and its kind."""

    vectors: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    kinds: np.ndarray

    def cosines(self, others: "Points") -> np.ndarray:
        """(points, other points), -inf within a group."""
        result = self.vectors @ others.vectors.T
        result[self.groups[:, None] == others.groups[None]] = -np.inf
        return result


def run(model: DSVLFSModel, episodes: Sequence[Episode], arguments: argparse.Namespace) -> Report:
    """Measures and reports.

    Args:
        arguments: `photos`, a folder with a `metadata.jsonl`, or None.

    Raises:
        InputError: a photo cannot be used, or there are fewer than two classes.
    """
    classes = [episode.class_name for episode in tqdm(episodes, unit="episode")] if arguments.photos else []
    items = folder_items(arguments.photos, set(classes)) if arguments.photos else episode_items(episodes)
    if len({item.class_name for item in items}) < 2:
        raise InputError("The photos show fewer than two of the episodes' classes; give --photos with more of them.")
    prompts, looks = embed(model, items)
    return report(prompts, looks, reads_photo=model.semantic_encoder.reads_photo)


def folder_items(folder: Path, class_names: set[str]) -> list[Item]:
    """The folder's photos that are of one of these classes by name, synonym or hypernym; the nearest counts.

    Raises:
        InputError: the folder is not laid out so.
    """
    items = []
    for entry in read_json_lines(folder / "metadata.jsonl", NamedPhoto):
        name, synonyms = entry["name"], entry.get("synonyms") or []
        class_name = next((n for n in [name, *synonyms, *(entry.get("hypernyms") or [])] if n in class_names), None)
        if class_name is None:
            continue
        wordings = [Wording("class name", class_name), Wording("photo's name", name)]
        wordings += [Wording("synonym", synonym) for synonym in synonyms if synonym != name]
        if entry.get("definition"):
            wordings.append(Wording("definition", name, entry["definition"]))

        def read(entry: dict = entry) -> tuple[Image.Image, np.ndarray]:
            photo = load_photo(folder / entry["image"])
            return photo, load_mask(folder / entry["mask"], photo.size, may_fill=True)

        items.append(Item(class_name, entry["image"], read, wordings))
    return items


def episode_items(episodes: Sequence[Episode]) -> list[Item]:
    """The episodes' supports, each once.

    Raises:
        InputError: an episode's photo or mask cannot be used.
    """
    items = {}
    for episode in tqdm(episodes, unit="episode"):
        wordings = [Wording("class name", name) for name in dict.fromkeys([episode.class_name, *episode.class_names])]
        if episode.description:
            wordings.append(Wording("definition", episode.class_name, episode.description))
        for support_id, example in zip(episode.support_ids, episode.support):
            items[support_id] = Item(episode.class_name, support_id, lambda example=example: example, wordings)
    return list(items.values())


@torch.inference_mode()
def embed(model: DSVLFSModel, items: Sequence[Item]) -> tuple[Points, Points | None]:
    """The semantic prompts, and the looks in the space that they share.

    A prompt that does not depend on the photo is one point a class and wording, and a class's own name is of no photo's
    group; otherwise every photo is asked in each of its wordings.

    Returns:
        Prompts; and a look an item, None where the model compares prompts with the decoder alone.

    Raises:
        InputError: a photo or mask cannot be used.
    """
    encoder, config = model.semantic_encoder, model.config
    prompts: dict[tuple[str, ...], tuple[torch.Tensor, str, str, str]] = {}
    looks = []
    for item in tqdm(items, unit="photo"):
        example = item.read()
        view, mask = model.processor.support_view(*example)
        features = model.frozen_features(view)
        if model.grounding is not None:
            layers = [features[name] for name in config.grounding_layers]
            grid = config.support_grid or layers[0].shape[-1]
            pooled = [F.adaptive_avg_pool2d(layer, grid) for layer in layers]
            share = F.adaptive_avg_pool2d(mask[:, None].to(model.device), grid)[:, 0]
            looks.append(model.grounding.look(pooled, share)[0])
        tokens = model.encode_query(example[0]).features["tokens"] if encoder.reads_photo else features["tokens"]
        for wording in item.wordings:
            group = item.group if encoder.reads_photo or wording.kind != "class name" else item.class_name
            key = (item.class_name, wording.name, wording.description or "", group if encoder.reads_photo else "")
            if key not in prompts:
                question = model.processor.question([(wording.name, wording.description)]).to(model.device)
                prompt = F.normalize(encoder.prompt(tokens, question)[0], dim=0)
                prompts[key] = (prompt, item.class_name, group, wording.kind)
    look_points = [(look, item.class_name, item.group, "look") for look, item in zip(looks, items)]
    return _points(list(prompts.values())), _points(look_points) if looks else None


def _points(parts: list[tuple[torch.Tensor, str, str, str]]) -> Points:
    vectors, *labels = zip(*parts)
    return Points(torch.stack(vectors).float().cpu().numpy(), *map(np.array, labels))


def neighbours(points: Points) -> list[tuple[str, str]]:
    """Of each point whose class has another group: its class, and that of its nearest neighbour of another group."""
    cosines = points.cosines(points)
    groups = {name: set(points.groups[points.classes == name]) for name in set(points.classes)}
    nearest = points.classes[cosines.argmax(axis=1)]
    return [(str(own), str(near)) for own, near in zip(points.classes, nearest) if len(groups[own]) > 1]


def separability(points: Points) -> dict[str, float | None]:
    """`silhouette` of the classes by cosine distance, in [-1, 1], and `nearest`, the percentage of `neighbours` that
    are of one class; None where each class has but one point."""
    count = len(set(points.classes))
    own = neighbours(points)
    return {
        "silhouette": float(silhouette_score(points.vectors, points.classes, metric="cosine"))
        if 1 < count < len(points.classes)
        else None,
        "nearest": 100 * float(np.mean([a == b for a, b in own])) if own else None,
    }


def retrieval(prompts: Points, looks: Points) -> dict[str, float]:
    """Percentage of prompts whose nearest look, their own photo's left out, is of their class; and of looks whose
    nearest prompt among the classes' names is that of their class."""
    named = prompts.kinds == "class name"
    names = Points(prompts.vectors[named], prompts.classes[named], prompts.groups[named], prompts.kinds[named])
    return {
        way: 100 * float((other.classes[own.cosines(other).argmax(axis=1)] == own.classes).mean())
        for way, own, other in (
            ("class name to photo", names, looks),
            ("any wording to photo", prompts, looks),
            ("photo to class name", looks, names),
        )
    }


def mixed(points: Points) -> dict[tuple[str, str], tuple[int, int]]:
    """Classes that mix with another, by `MIXED`: how many of the first's points are nearest to the second, of how
    many."""
    pairs = neighbours(points)
    sizes = Counter(own for own, _ in pairs)
    found = Counter((own, near) for own, near in pairs if own != near)
    return {pair: (n, sizes[pair[0]]) for pair, n in found.most_common() if n >= max(2, MIXED * sizes[pair[0]])}


def spread(prompts: Points) -> list[list[str | float]]:
    """Rows of how alike prompts are: what is compared, their mean cosine, and the number of pairs."""
    cosines = prompts.vectors @ prompts.vectors.T
    kinds, groups = prompts.kinds, prompts.groups
    same_group, same_class = groups[:, None] == groups[None], prompts.classes[:, None] == prompts.classes[None]
    name = kinds == "photo's name"
    both = name[:, None] & name[None] & ~same_group
    of_class = (kinds == "class name")[:, None] & (kinds == "class name")[None]
    compared = {
        "a name and its synonyms": name[:, None] & (kinds == "synonym")[None] & same_group,
        "a name without and with its definition": name[:, None] & (kinds == "definition")[None] & same_group,
        "a class's name before different photos": of_class & same_class & ~same_group,
        "names of photos of one class": both & same_class,
        "names of photos of different classes": both & ~same_class,
        "names of different classes": of_class & ~same_class,
    }
    rows = []
    for what, pairs in compared.items():
        if np.array_equal(pairs, pairs.T):  # two of a kind: once, whichever comes first
            pairs = np.triu(pairs, 1)
        if pairs.any():
            rows.append([what, float(cosines[pairs].mean()), int(pairs.sum())])
    return rows


def report(prompts: Points, looks: Points | None, *, reads_photo: bool) -> Report:
    """The tables, the pictures and what follows from them.

    Args:
        reads_photo: whether a prompt depends on its photo.
    """
    names = sorted(set(prompts.classes))
    sets = {"prompts": prompts} | ({"looks": looks} if looks is not None else {})
    measured = {name: separability(points) for name, points in sets.items()}
    tables = [
        Table(
            "Separability: silhouette in [-1, 1], nearest neighbours of the same class in percent",
            ["what", "points", "silhouette", "nearest neighbour"],
            [[name, len(sets[name].classes), *own.values()] for name, own in measured.items()],
            2,
        ),
        Table("How alike prompts are: mean cosine", ["compared", "cosine", "pairs"], spread(prompts), 3),
    ]
    found = retrieval(prompts, looks) if looks is not None else {}
    if looks is not None:
        tables.append(Table("Retrieval, in percent", ["from", "right first"], [[way, x] for way, x in found.items()]))
    findings = [
        "A prompt depends on its photo: each photo was asked in each of its wordings."
        if reads_photo
        else "The prompt does not depend on the photo: what varies inside a class is how it is worded."
    ]
    for what, points in sets.items():
        pairs = [f"{own} with {near} ({n} of {all_})" for (own, near), (n, all_) in mixed(points).items()]
        findings.append(f"Classes that mix, by {what}: {', '.join(pairs) or 'none'}.")
    if looks is None:
        findings.append("This model has no space that prompts and photos share: only prompts are compared.")
    pictures = {name: _scatter(points, names) for name, points in sets.items()}
    if looks is not None:
        joined = [np.concatenate(parts) for parts in zip(vars(prompts).values(), vars(looks).values())]
        pictures["together"] = _scatter(Points(*joined), names)
    return Report(
        title="Embeddings",
        how=f"{len(names)} classes. A look is an object's mask-pooled features in the space that it shares with the "
        "prompts. Neighbours are by cosine, and never of the same photo. A class mixes with another where at least "
        f"{MIXED:.0%} of its points, and two, have their nearest neighbour there.",
        tables=tables,
        findings=findings,
        pictures=pictures,
        data={
            "separability": measured,
            "retrieval": found,
            "mixed": {w: [[*pair, *n] for pair, n in mixed(p).items()] for w, p in sets.items()},
            "reads_photo": reads_photo,
        },
    )


def _scatter(points: Points, names: Sequence[str]) -> Image.Image:
    """PCA and t-SNE side by side; a class is a colour, with its name at its median and,
    since names there may hide each other, in the legend."""
    count = len(points.vectors)
    tsne = TSNE(metric="cosine", init="pca", perplexity=min(30, (count - 1) / 3), random_state=0)
    figure = new_figure(14, 7)
    colour = dict(zip(names, colours(len(names))))
    for axes, (title, flat) in zip(
        figure.subplots(1, 2),
        {"PCA": PCA(2).fit_transform(points.vectors), "t-SNE": tsne.fit_transform(points.vectors)}.items(),
    ):
        for name in names:
            for is_look, marker in ((True, "o"), (False, "^")):
                chosen = (points.classes == name) & ((points.kinds == "look") == is_look)
                axes.scatter(*flat[chosen].T, color=colour[name], marker=marker, s=26, alpha=0.8, linewidths=0)
            middle = np.median(flat[points.classes == name], axis=0)
            box = {"facecolor": "white", "edgecolor": colour[name], "alpha": 0.85, "boxstyle": "round,pad=0.2"}
            axes.annotate(name, middle, ha="center", va="center", fontsize=8, bbox=box)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    handles = [Patch(color=colour[name], label=name) for name in names]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    figure.supxlabel("triangle: semantic prompt; dot: look of an object; the name stands at its class's median", size=9)
    return as_picture(figure)
