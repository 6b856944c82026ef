"""Several masks of one request, and the one that is taken: that whose predicted IoU is the largest.

SAM's decoder answers with several masks and predicts the IoU of each (Kirillov et al. 2023, arXiv 2304.02643, section
3). Here they differ in what they believe: the decoder by both prompts, by either alone, and with the maps of the two
closed-form fits in several strengths. No one of these is the best everywhere (docs/experiments.md): a fit to whole
photos is worth most in photos of one kind, a name most among strange objects. What tells them apart without a look at
the truth is how far they agree, how sure each one is, and how large it is beside the supports'. A linear regression
predicts each one's IoU from that (`dsvlfs.training.choice_fit`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Reading(NamedTuple):
    """One of the masks.

    Args:
        start: whose logits it starts from: "asked" (what the request asks for), "visual", "semantic" (by that prompt
            alone), or None for nothing.
        whole: so many times the map of the fit to the supports' whole photos.
        fit: so many times that of the fit to the request.
        shift: added to the logits.
    """

    start: str | None
    whole: float = 0.0
    fit: float = 0.0
    shift: float = 0.0


READINGS = (
    Reading("asked"),
    Reading("visual"),
    Reading("semantic"),
    Reading("asked", whole=4),
    Reading("asked", whole=8),
    Reading(None, whole=8),
    Reading(None, fit=8),
    Reading("asked", shift=1),
    Reading("asked", shift=-1),
    Reading("asked", whole=8, shift=1),
    Reading("asked", fit=8),
    Reading(None, whole=8, shift=1),
)
"""Of a request with a name."""
_UNNAMED = tuple(place for place, reading in enumerate(READINGS) if reading.start in ("asked", None))
SIGNS = 8
MARGIN = 0.05
"""What is asked for is left for a mask that is predicted to be so much better; of many predictions the largest is
partly luck."""
_TINY = 1e-3


class MaskChoice(nn.Module):
    """Predicts the IoU of each mask, and takes the best, or what was asked for where none is better by `MARGIN`."""

    def __init__(self) -> None:
        super().__init__()
        # Of each reading, the weight of every sign and a constant; zeros take the first.
        self.register_buffer("named", torch.zeros(len(READINGS), SIGNS + 1))
        self.register_buffer("unnamed", torch.zeros(len(_UNNAMED), SIGNS + 1))

    def forward(self, masks: Mapping[str, Tensor], whole: Tensor, fit: Tensor, about: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses.

        Args:
            masks: logits (1, height, width) with their offset: "asked", and of a request with a name "visual" and
                "semantic".
            whole, fit: (1, size, size), the maps of the two fits.
            about: of `about_request`.

        Returns:
            The logits (1, height, width), and the IoU that is predicted of them, a number in [0, 1].
        """
        logits = readings(masks, whole, fit)
        weight = self.named if "semantic" in masks else self.unnamed
        predicted = predict_iou(mask_signs(logits, about), weight)
        best = chosen(predicted)
        return logits.index_select(0, best), predicted.index_select(0, best)[0].clamp(0, 1)


def predict_iou(signs: Tensor, weight: Tensor) -> Tensor:
    """The IoU (R,) that follows from the signs (R, `SIGNS`) by the weights (R, `SIGNS` + 1), not cut to [0, 1]."""
    return (signs * weight[:, :-1]).sum(dim=1) + weight[:, -1]


def chosen(predicted: Tensor) -> Tensor:
    """The place (1,) of the reading that is taken, by the IoU (R,) that is predicted of each; the first is what was
    asked for."""
    return torch.cat([predicted[:1] + MARGIN, predicted[1:]]).argmax(dim=0, keepdim=True)


def about_request(likeness: Tensor, shown: Tensor) -> Tensor:
    """What is known of a request before a mask is made.

    Args:
        likeness: of `dsvlfs.parts.whole_fit.likeness`.
        shown: (K, height, width), the supports' whole masks, in [0, 1].

    Returns:
        (3,): the likeness, the share of the supports' photos that is foreground, and how many further supports there
        are, of the four that count.
    """
    further = torch.ones_like(shown[:, 0, 0]).sum() - 1  # `len` is fixed in an export
    return torch.stack([likeness.float(), shown.float().mean(), further.float().clamp(max=4) / 4])


def readings(masks: Mapping[str, Tensor], whole: Tensor, fit: Tensor) -> Tensor:
    """The logits of every reading; the arguments are those of `MaskChoice`.

    Returns:
        (R, height, width), in `READINGS`' order; without "visual" and "semantic" those that need neither.
    """
    side = masks["asked"].shape[-2:]
    wide, near = (
        F.interpolate(m[None].float(), side, mode="bilinear", align_corners=False)[0, 0] for m in (whole, fit)
    )
    starts = {name: logits[0].float() for name, logits in masks.items()}
    chosen = READINGS if "semantic" in masks else [READINGS[place] for place in _UNNAMED]
    return torch.stack(
        [
            (starts[r.start] if r.start else torch.zeros_like(wide)) + r.whole * wide + r.fit * near + r.shift
            for r in chosen
        ]
    )


def mask_signs(logits: Tensor, about: Tensor) -> Tensor:
    """What an IoU is predicted from.

    Args:
        logits: (R, height, width), of the readings of one request.
        about: of `about_request`.

    Returns:
        (R, `SIGNS`): the soft IoU with all readings (their mean) and with their mean probability; the IoU to expect by
        the reading's own probability; its mean probability; how far that is from the supports' share (the difference
        of the logarithms); whether it finds anything; the likeness; and the further supports.
    """
    probability = logits.float().sigmoid().flatten(1)
    agreement = _soft_iou(probability, probability).mean(dim=1)
    consensus = _soft_iou(probability, probability.mean(dim=0, keepdim=True))[:, 0]
    found = probability > 0.5
    inside = (probability * found).sum(dim=1)
    own = inside / (found.sum(dim=1) + probability.sum(dim=1) - inside).clamp(min=1)
    area = probability.mean(dim=1)
    away = ((area + _TINY).log() - (about[1] + _TINY).log()).abs()
    known = torch.stack([agreement, consensus, own, area, away, found.any(dim=1).to(area.dtype)], dim=1)
    return torch.cat([known, about[[0, 2]].expand(len(known), -1)], dim=1)


def _soft_iou(one: Tensor, other: Tensor) -> Tensor:
    """Of every mask (N, pixels) with every other one (M, pixels), in [0, 1]: (N, M)."""
    both = one @ other.mT
    return both / (one.sum(dim=1)[:, None] + other.sum(dim=1) - both).clamp(min=_TINY)
