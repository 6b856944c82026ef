"""Fits what chooses among several masks of a request (`dsvlfs.parts.mask_choice`): the IoU of each, from its signs, on
requests whose truth is known and whose class or field the checkpoint has not learned."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .. import DSVLFSModel, InputError
from ..data.label_maps import fields_of
from ..data.pascal import PASCAL_CLASSES
from ..inference.decoding import Choice, compare, decode, image_embedding, to_choose_from, together
from ..inference.encoded import Asked
from ..inference.segmenting import asked_by_name
from ..parts.mask_choice import MaskChoice, chosen, mask_signs, predict_iou, readings
from .requests import Request, coco_scenes, field_requests, training_mosaics, unseen_pascal

_RIDGE = 50.0
"""Added to the diagonal, of signs that are standardised over some hundred requests."""


@dataclass(frozen=True)
class Known:
    """What a fit learns from one request.

    Args:
        kind: of request; every kind counts the same.
        signs: (R, signs) of each mask.
        iou: (R,) of each, as it is.
    """

    kind: str
    signs: Tensor
    iou: Tensor


@dataclass(frozen=True)
class Fitted:
    """What came of it.

    Args:
        requests: fitted to.
        before, after: mean IoU, in percent, of what was asked for and of what is chosen, every kind counting the same;
            on the requests that it was fitted to.
    """

    requests: int
    before: float
    after: float


def fit_choice(
    checkpoint: str | Path,
    root: Path,
    out: Path,
    *,
    fields: Sequence[str] = (),
    folds: Sequence[Path] = (),
    requests: int = 20,
) -> Fitted:
    """Writes a checkpoint that chooses among masks; nothing else changes.

    Args:
        checkpoint: its folder or name; it has the fit to the request.
        root: of the training packs.
        out: folder for the result.
        fields: folders of the pack `domains` that training left out.
        folds: checkpoints of PASCAL-5i's four folds, in order. The checkpoint itself knows all training photos; these
            are asked for classes and photos that they have not learned: in VOC's and COCO's photos and in all fields.
        requests: with one support, of each field that was left out; other kinds have theirs in proportion.

    Raises:
        InputError: a checkpoint or the packs cannot be used.
        BaseNotAvailableError: a base cannot be had.
    """
    model = DSVLFSModel.from_pretrained(checkpoint)
    named: list[Known] = []
    unnamed: list[Known] = []
    for kind, asked, request in tqdm(_requests(_choosing(model), root, fields, folds, requests), unit="request"):
        heard, alone = known_of(asked, kind, request)
        named, unnamed = named + [heard] * (heard is not None), [*unnamed, alone]
    choice = model.mask_choice
    choice.named.copy_(solve(named))
    choice.unnamed.copy_(solve(unnamed))
    model.save_pretrained(out, dtype=torch.float16)
    before, after = (_mean(named, choice.named * used) for used in (0, 1))
    return Fitted(len(unnamed), before, after)


def _choosing(model: DSVLFSModel) -> DSVLFSModel:
    """A model that has a choice, of zeros where nobody has fitted it."""
    if model.request_fit is None:
        raise InputError("What chooses among masks needs the fit to the request; give a checkpoint with fit_ridge.")
    model.config.mask_choice = True
    model.mask_choice = model.mask_choice or MaskChoice()
    return model


def _requests(
    model: DSVLFSModel, root: Path, fields: Sequence[str], folds: Sequence[Path], number: int
) -> Iterator[tuple[str, DSVLFSModel, Request]]:
    """Kind, model and request of each."""
    own = [root / "domains" / name for name in fields]
    for request in training_mosaics(root / "imagenet_sample" / "train", 5 * number // 2):
        yield "mosaic", model, request
    for shots, share in ((1, number), (5, number // 2)):
        for request in field_requests(own, share * len(own), shots) if own else ():
            yield "field", model, request
    if not folds:
        return
    others = [_choosing(DSVLFSModel.from_pretrained(fold)) for fold in folds]
    everywhere = fields_of(root / "domains")
    for shots, share in ((1, max(1, 2 * number // 5)), (5, max(1, number // 5))):
        asked = field_requests(everywhere, share * len(everywhere), shots)
        yield from (("field", others[place % len(others)], request) for place, request in enumerate(asked))
    for place, other in enumerate(others):
        asked = unseen_pascal(root / "VOC2012", place, max(1, 3 * number // 4))
        yield from (("voc", other, request) for request in asked)
    fold_of = {name.lower(): place // 5 for place, names in enumerate(PASCAL_CLASSES) for name in names}
    for place, request in enumerate(coco_scenes(root / "coco_sample", max(1, 11 * number // 2))):
        tested = fold_of.get(request.class_name.lower())
        if tested is None:
            yield "coco", others[place % len(others)], request
        else:  # by one that has learned the class, on photos that it has not
            yield "known", others[(tested + 1 + place % 3) % len(others)], request


@torch.inference_mode()
def known_of(model: DSVLFSModel, kind: str, request: Request) -> tuple[Known | None, Known]:
    """What a request tells of the masks with the name, or None where its name is left out, and without."""
    query = model.encode_query(request.query)
    support = model.encode_support([request.support, *request.further])
    by_support = Asked(query.features, image_embedding(model, query.features))
    question = model.processor.question([(request.class_name, None)]).to(model.device)
    by_name = asked_by_name(model, by_support, request.class_name, [(1.0, question)])
    shots = compare(model, query.features, support, by_support.embedding.shape[-1])
    is_heard = model.predict(query, request.class_name, support=support, modes=["both"])["both"].is_name_heard
    found = []
    for asked in (by_name, by_support):
        decided = together(*decode(model, asked, shots, "joint"))
        choice = to_choose_from(model, asked, by_support, decided, shots, "joint")
        found.append(_known(kind, choice, request))
    return found[0] if is_heard else None, found[1]


def _known(kind: str, choice: Choice, request: Request) -> Known:
    logits = readings(choice.masks, choice.whole, choice.fit)
    truth = _on_grid(request.query_mask, logits.shape[-1]) > 0.5
    counted = torch.ones_like(truth)
    if request.ignore is not None:
        counted = _on_grid(request.ignore, logits.shape[-1]) < 0.5
    found = logits > 0
    both, either = ((own & counted).sum(dim=(1, 2)) for own in (found & truth, found | truth))
    return Known(kind, mask_signs(logits, choice.about), both / either.clamp(min=1))


def _on_grid(mask: np.ndarray, side: int) -> Tensor:
    shown = Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.array(shown)).float() / 255


def solve(known: Iterable[Known]) -> Tensor:
    """The weights under which each mask's IoU follows from its signs, by ridge regression.

    Args:
        known: of at least one request, all with the same number R of masks.

    Returns:
        (R, signs + 1), in float32: the weights of the signs, and a constant.
    """
    rows = list(known)
    weight = _weights(rows)
    rest = []
    for place in range(len(rows[0].iou)):
        signs = torch.stack([row.signs[place] for row in rows]).double()
        iou = torch.stack([row.iou[place] for row in rows]).double()
        mean, spread = signs.mean(dim=0), signs.std(dim=0, correction=0) + 1e-6
        scaled, middle = (signs - mean) / spread, (weight * iou).sum() / weight.sum()
        gram = scaled.T @ (weight[:, None] * scaled) + _RIDGE * torch.eye(len(mean), dtype=torch.float64)
        slope = torch.linalg.solve(gram, scaled.T @ (weight * (iou - middle))) / spread
        rest.append(torch.cat([slope, (middle - slope @ mean)[None]]))
    return torch.stack(rest).float()


def _weights(rows: Sequence[Known]) -> Tensor:
    """(requests,): every kind counts the same, and a request 1 in the mean."""
    kinds = [row.kind for row in rows]
    weight = torch.tensor([1 / kinds.count(kind) for kind in kinds], dtype=torch.float64)
    return weight / weight.mean()


def _mean(rows: Sequence[Known], weights: Tensor) -> float:
    """Mean IoU, in percent, of the masks that these weights choose."""
    ious = torch.cat([row.iou[chosen(predict_iou(row.signs, weights))] for row in rows]).double()
    return float(100 * (_weights(rows) * ious).mean())
