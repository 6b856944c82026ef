"""An encoded query and what it is asked by, to mask logits: quick, and once a class and its supports."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..parts.aggregation import Aggregation, support_evidence
from ..parts.matching import Match
from ..parts.request_fit import unit_positions
from .encoded import Asked, Shots, Support
from .interface import Parts
from .name_trust import named_layers


def image_embedding(model: Parts, features: dict[str, Tensor]) -> Tensor:
    """The mask decoder's image embedding (batch, prompt_dim, height, width)."""
    dtype = model.mask_decoder.no_visual_prompt.dtype
    if model.neck is None:
        return features["image.embedding"].to(dtype)
    return model.neck([features[name].to(dtype) for name in model.config.embedding_layers])


def ground(model: Parts, features: dict[str, Tensor], semantic: Tensor, size: int) -> Tensor:
    """What semantic prompts (batch, prompt_dim) add to the dense prompt (batch, prompt_dim, size, size)."""
    return model.grounding(semantic, [features[name] for name in model.config.grounding_layers], size)


def match(model: Parts, features: dict[str, Tensor], layers: Sequence[Tensor], mask: Tensor, size: int) -> Match:
    """What visual prompts are made of, of query features and one support each; the features of a single query serve
    all supports."""
    return model.matcher.match([features[name] for name in model.config.correlation_layers], layers, mask, size)


def compare(model: Parts, features: dict[str, Tensor], support: Support, size: int) -> Shots:
    """Compares a query's features with each support; visual prompts of `size` positions a side."""
    found = match(model, features, support.layers, support.masks, size)
    return Shots(support, found, model.matcher.prompt(found))


def attend_shots(
    model: Parts, prompts: Tensor, layers: Sequence[Tensor], masks: Tensor, semantic: Tensor | None
) -> Tensor:
    """The visual prompts of K shots to one, by the learned attention; a single one is left as it is.

    Args:
        model: its attention, and its grounding where the name counts.
        prompts: (K, prompt_dim, size, size), of one query.
        layers, masks: of the K supports, as `Support` holds them.
        semantic: (1, prompt_dim) of the class, where the name counts too.

    Returns:
        (1, prompt_dim, size, size).
    """
    if len(prompts) == 1:
        return prompts
    config, fit = model.config, None
    comparable = model.grounding is not None and set(config.grounding_layers) <= set(config.correlation_layers)
    if semantic is not None and comparable:
        named = named_layers(config, layers)
        fit = model.grounding.cosine(semantic.expand(len(masks), -1), named, masks.shape[-1])
    return model.shot_attention(prompts, support_evidence(layers, masks, fit))


def decode(
    model: Parts, asked: Asked, shots: Shots | None, aggregation: Aggregation, logits: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The mask decoder's answer to a query.

    Args:
        model: its mask decoder, and what joins the shots.
        asked: the query, and the class.
        shots: that it was compared with; None where there are none.
        aggregation: how they become one mask.
        logits: of each shot alone, where they are known.

    Returns:
        Logits (max(K, 1), height, width), one map a shot; and what the shots say together (1, height, width), or
        None where it is their votes, or the one shot's own.
    """
    if logits is None:
        logits = _shown(model, asked, None if shots is None else shots.prompts, shots)
    if len(logits) == 1 or aggregation == "votes":
        return logits, None
    if aggregation == "logits":
        return logits, logits.mean(dim=0, keepdim=True)
    if aggregation == "joint":
        one = model.matcher.prompt(shots.match.joint())
    else:
        one = attend_shots(model, shots.prompts, shots.support.layers, shots.support.masks, asked.semantic)
    return logits, _shown(model, asked, one, shots, together=True)


def _shown(model: Parts, asked: Asked, visual: Tensor | None, shots: Shots | None, *, together: bool = False) -> Tensor:
    """Mask logits (max(V, 1), height, width) by V visual prompts and the fit to each shot, or to all of them together;
    what the model remembers of a class stands in place of such fits."""
    if asked.remembered is not None:
        score, added = asked.remembered, model.config.memory_weight * asked.remembered
        if visual is None:
            visual = model.mask_decoder.no_visual_prompt[None, :, None, None]
    elif visual is None or shots is None or model.request_fit is None:
        return _decode(model, asked, visual)
    else:
        is_all = together or len(shots.support.masks) == 1
        score, added = _fitted(model, asked, shots, visual.shape[-1], is_all)
    logits = _decode(model, asked, visual + model.request_fit.prompt(score))
    if added is None:
        return logits
    return logits + F.interpolate(added[:, None], logits.shape[-2:], mode="bilinear", align_corners=False)[:, 0].to(
        logits.dtype
    )


def _fitted(model: Parts, asked: Asked, shots: Shots, size: int, is_all: bool) -> tuple[Tensor, Tensor | None]:
    """The map of the fit to each shot (K, size, size), or where these are all there is to the request, to all of them
    (1, size, size); and then what is added to the logits (1, size, size)."""
    support, fit = shots.support, model.request_fit
    shape = (1, len(support.masks)) if is_all else (len(support.masks), 1)
    query = [asked.features[name] for name in model.config.correlation_layers]
    layers, masks = [layer.unflatten(0, shape) for layer in support.layers], support.masks.unflatten(0, shape)
    score = fit.score([layer.expand(shape[0], -1, -1, -1) for layer in query], layers, masks, size)
    if not is_all:
        return score, None
    added = None
    if fit.share and len(support.masks) > 1:
        added = fit.weight(support.layers, support.masks) * score
    if support.whole_fit is not None:
        places = unit_positions(query, size)
        is_doubted = asked.is_doubted and len(support.masks) == 1  # several tell more than a name does
        limit = model.config.doubted_likeness if is_doubted else model.config.whole_likeness
        if support.whole_fit.likeness(places) >= limit:
            told = model.config.whole_weight * support.whole_fit.score(places).unflatten(1, (size, size))
            added = told if added is None else added + told
    return score, added


def _decode(model: Parts, asked: Asked, visual: Tensor | None) -> Tensor:
    """Mask logits (max(V, 1), height, width) of one query, one map for each of V visual prompts."""
    embedding, semantic, dense = asked.embedding, asked.semantic, visual
    if asked.grounded is not None:
        dense = asked.grounded + (model.mask_decoder.no_visual_prompt[:, None, None] if visual is None else visual)
    if visual is not None:
        embedding = embedding.expand(len(visual), -1, -1, -1)
        semantic = semantic if semantic is None else semantic.expand(len(visual), -1)
    details = [asked.features[name].expand(len(embedding), -1, -1, -1) for name in model.config.detail_layers or []]
    return model.mask_decoder(embedding, semantic, dense, details)
