"""A class in photos: from the photo, the name and the supports to the mask."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parts.aggregation import Aggregation
from ..parts.semantic_encoder import Question
from .checks import (
    Mode,
    aggregation_of,
    batch_size_of,
    check_modes,
    check_query,
    check_support,
    class_name_of,
    description_of,
    share_of,
    zoom_of,
)
from .decoding import compare, decode, ground, image_embedding
from .encoded import Asked, Query, Shots, Support
from .encoding import encode_queries
from .interface import Parts
from .name_trust import name_fit, named_layers
from .photos import Photo, load_photo
from .presence import support_fit
from .remembered import place_of, remembered_map
from .results import Prediction, Segmentation
from .strangers import SHOWN, on_square, without_strangers
from .zoom import region_to_look_at, with_second_look

_NOTHING = -20.0
"""A logit of no object at all."""


@torch.inference_mode()
def segment(
    model: Parts,
    images: Sequence[Photo | Query],
    class_name: str,
    *,
    support: Support | None,
    description: str | None,
    mode: Mode,
    threshold: float,
    min_presence: float | None,
    aggregation: Aggregation | None,
    batch_size: int,
    zoom: bool | None,
) -> list[Segmentation]:
    """`DSVLFSModel.segment` of several photos."""
    threshold, batch_size = share_of(threshold, "threshold"), batch_size_of(batch_size)
    look_closer = zoom_of(zoom, images)
    min_presence = None if min_presence is None else share_of(min_presence, "min_presence")
    _check(model, class_name, support, description, [mode], aggregation)
    results = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        if len(batch) > 1:
            encoded = iter(encode_queries(model, [image for image in batch if not isinstance(image, Query)]))
            batch = [image if isinstance(image, Query) else next(encoded) for image in batch]
        for image, photo in zip(batch, images[start : start + batch_size]):
            asked = {"support": support, "description": description, "modes": [mode], "aggregation": aggregation}
            found = predict(model, image, class_name, **asked)[mode]
            if look_closer and (box := region_to_look_at(found)) is not None:
                closer = predict(model, load_photo(photo).crop(box), class_name, **asked)[mode]
                found = with_second_look(found, box, closer)
            results.append(found.segmentation(threshold, min_presence=min_presence))
    return results


@torch.inference_mode()
def predict(
    model: Parts,
    image: Photo | Query,
    class_name: str,
    *,
    support: Support | None,
    description: str | None,
    modes: Sequence[Mode],
    aggregation: Aggregation | None,
) -> dict[Mode, Prediction]:
    """`DSVLFSModel.predict`."""
    aggregation = _check(model, class_name, support, description, modes, aggregation)
    name, described = _questions(model, class_name, description)
    query = image if isinstance(image, Query) else encode_queries(model, [image])[0]
    check_query(model, query)
    features = query.features
    by_support = Asked(features, image_embedding(model, features))
    size = by_support.embedding.shape[-1]
    by_name, shots = by_support, None
    if any(mode != "visual" for mode in modes):
        by_name = asked_by_name(model, by_support, class_name, _weighed(model, class_name, name, described))
    if support is not None and any(mode != "semantic" for mode in modes):
        shots = compare(model, features, support, size)
    predictions = {}
    for mode in modes:
        shown = None if mode == "semantic" else shots
        is_heard, is_doubted = mode == "semantic", False
        if mode == "both":
            is_heard, is_doubted = _believed(model, by_name, support)
        asked = replace(by_name if is_heard else by_support, is_doubted=is_doubted)
        logits, joined = decode(model, asked, shown, aggregation)
        if query.is_blank:  # the encoders never saw such a photo, and say anything of it
            logits, joined = torch.full_like(logits, _NOTHING), None
        found = model.processor.prediction(logits, query.valid, query.size, joined)
        found = replace(found, is_name_heard=is_heard or mode == "visual")
        found = _with_what_is_named(model, found, query, asked, shown)
        predictions[mode] = _with_fits(model, found, query, asked, shown)
    return predictions


def asked_by_name(model: Parts, asked: Asked, class_name: str, texts: Sequence[tuple[float, Question]]) -> Asked:
    """A query asked by a class's name as well.

    Args:
        model: its language model, grounding and memory.
        asked: the query alone.
        class_name: of the class.
        texts: the questions for it, and the weight of each one's prompt.
    """
    features, size = asked.features, asked.embedding.shape[-1]
    semantic = sum(weight * model.semantic_encoder.prompt(features["tokens"], question) for weight, question in texts)
    grounded = ground(model, features, semantic, size) if model.grounding is not None else None
    remembered = remembered_map(model, features, class_name_of(class_name), size)
    return replace(asked, semantic=semantic, grounded=grounded, remembered=remembered)


def _believed(model: Parts, asked: Asked, support: Support) -> tuple[bool, bool]:
    """Whether the name is heard beside the supports, and whether it is doubted."""
    config = model.config
    trust, doubt = config.name_trust, config.name_doubt
    if trust is None and doubt is None:
        return True, False
    fit = name_fit(model.grounding, asked.semantic, named_layers(config, support.layers), support.masks)
    return trust is None or fit >= trust, doubt is not None and fit < doubt


def _with_what_is_named(model: Parts, found: Prediction, query: Query, asked: Asked, shots: Shots | None) -> Prediction:
    """A prediction without the parts that are something else than the name that it was asked by; as it is where it was
    asked by none, or by one that the model remembers."""
    config, grounding = model.config, model.grounding
    if config.stranger_margin is None or asked.semantic is None or asked.remembered is not None:
        return found
    if asked.is_doubted and len(shots.support.masks) > 1:  # several supports tell more than such a name does
        return found

    def fit(parts: Tensor) -> Tensor:
        named = [query.features[name] for name in config.grounding_layers]
        shares = on_square(parts, query.valid, config.image_size, asked.grounded.shape[-1]).to(model.device)
        looks = grounding.look(named, shares)
        fits = F.cosine_similarity(looks, asked.semantic.to(looks))
        if shots is not None:
            shown = grounding.look(named_layers(config, shots.support.layers), shots.support.masks)
            fits = fits + SHOWN * (looks @ shown.to(looks).mT).mean(dim=1)
        return fits.float().cpu()

    return without_strangers(found, fit, config.stranger_margin)


def _with_fits(model: Parts, found: Prediction, query: Query, asked: Asked, shots: Shots | None) -> Prediction:
    """A prediction that knows how well what its mask covers fits the name and the supports it was asked by; as it is
    where nothing says how far its probability can be believed."""
    if found.calibration is None:
        return found
    config, features, fits = model.config, query.features, []
    width, height = query.valid
    covered = torch.zeros(1, config.image_size, config.image_size, dtype=torch.float32, device=model.device)
    covered[0, :height, :width] = torch.from_numpy(found.calibrated(query.valid))
    if asked.grounded is not None:
        named = [features[name] for name in config.grounding_layers]
        on_grid = F.adaptive_avg_pool2d(covered, asked.grounded.shape[-1])
        look = model.grounding.look(named, on_grid)
        fits.append(float(F.cosine_similarity(look, asked.semantic.to(look))))
    if shots is not None:
        deepest, support = features[config.correlation_layers[-1]], shots.support
        fits.append(support_fit(deepest, covered, support.layers[-1], support.masks))
    limit = config.min_presence if len(fits) == 2 else 0.0  # fewer signs have another scale
    return replace(found, fits=tuple(fits), min_presence=limit)


def _questions(model: Parts, class_name: str, description: str | None) -> tuple[Question, Question | None]:
    """The questions for a class, by its name and with its description, if it has one.

    Raises:
        InputError: the name or the description cannot be used.
    """
    is_described = isinstance(description, str) and bool(description.strip())
    name, *described = (
        model.processor.question([(class_name, text)]).to(model.device)
        for text in ([None, description] if is_described else [None])
    )
    return name, described[0] if described else None


def _weighed(model: Parts, class_name: str, name: Question, described: Question | None) -> list[tuple[float, Question]]:
    """The questions to ask, and the weight of each one's prompt."""
    if described is None:
        return [(1.0, name)]
    config = model.config
    weight, limit = config.description_weight, config.unknown_word
    is_taught = place_of(config.remembered_classes or [], class_name_of(class_name)) is not None
    if weight < 1 and limit is not None and not is_taught and model.semantic_encoder.strangeness(name) >= limit:
        weight = 1.0
    return [(weight, described)] + ([(1 - weight, name)] if weight < 1 else [])


def _check(
    model: Parts,
    class_name: str,
    support: Support | None,
    description: str | None,
    modes: Sequence[Mode],
    aggregation: Aggregation | None,
) -> Aggregation:
    """Raises InputError for what can be told to be wrong before a photo is read; gives the aggregation to use."""
    check_support(model, support)
    check_modes(modes, support)
    class_name_of(class_name)
    description_of(description)
    return aggregation_of(model, aggregation)
