"""Makes the language model see the photo, in closed form, before any descent.

The vision tower's own classifier says what is at every place of a photo. What the language model should read there is
the mean of the embeddings of those classes' names, weighted by their probability; a ridge regression from the tower's
tokens to it is the projector.
"""

import torch
from torch import Tensor

from ..errors import InputError
from ..hub.imagenet_classes import ImagenetClasses
from ..modeling import DSVLFSModel
from .feature_cache import FeatureCache

# Strength of the fit of embeddings to tokens, which are standardised.
_RIDGE = 10_000.0

# What is seen differs from its mean by so much more than the mean over a classifier's doubts does.
_CONTRAST = 3.0

# Photos from whose states the standardisation is taken, at most.
_PHOTOS = 200


@torch.no_grad()
def name_embeddings(model: DSVLFSModel, names: list[str]) -> Tensor:
    """The mean embedding (names, width) of each name's tokens."""
    tokenizer, embed = model.processor.tokenizer, model.get_input_embeddings()
    ids = [tokenizer(" " + name, add_special_tokens=False, return_tensors="pt").input_ids[0] for name in names]
    # One call: where the added token's row learns, each copies the whole table.
    words = embed(torch.cat(ids).to(model.device)).split([len(own) for own in ids])
    return torch.stack([own.mean(dim=0) for own in words]).float()


@torch.no_grad()
def start_seeing(model: DSVLFSModel, cache: FeatureCache, classes: ImagenetClasses) -> None:
    """Gives a model of the tiny size, whose projector is silent, a projector that sees, and a `PhotoPrompt` that adds
    nothing yet; its prompts stay as they are.

    Args:
        model: changed in place.
        cache: of its frozen features, finished.
        classes: of the vision tower's classifier.

    Raises:
        InputError: the cache lacks the tower's last stage, or shows too little.
    """
    encoder = model.semantic_encoder
    projector = encoder.llava.model.multi_modal_projector
    silent = projector.linear_2.bias.detach().float().clone()
    last = f"vision.{len(encoder.vision_tower.stages) - 1}"
    views = [cache.load("queries", stem, {last, "tokens"}) for stem in cache.names("queries")]
    if not views or last not in views[0]:
        raise InputError(f"The feature cache {cache.folder} lacks {last}, which says what is in the photo.")
    tokens = torch.stack([view["tokens"] for view in views]).float()
    side = round(tokens.shape[1] ** 0.5)
    embeddings = name_embeddings(model, [names[0] for names in classes.names]).cpu()
    wanted = torch.cat([classes.probabilities(view[last][None].float(), side) @ embeddings for view in views])
    fit_projector(model, tokens, wanted)
    shown = [
        (view["tokens"][None].float(), entry["objects"][0]["names"][0])
        for view, entry in zip(views, cache.names("queries").values())
        if entry["objects"]
    ][:_PHOTOS]
    if len(shown) < 2:
        raise InputError(f"The feature cache {cache.folder} shows fewer than two classes; build it of more photos.")
    seen = []
    for photo, name in shown:
        question = model.processor.question([(name, None)]).to(model.device)
        seen.append(encoder.read(photo.to(model.device), question)[0])
    encoder.add_photo_prompt()
    model.config.photo_state = True
    encoder.photo_prompt.start(silent, torch.cat(seen))


@torch.no_grad()
def fit_projector(model: DSVLFSModel, tokens: Tensor, wanted: Tensor) -> None:
    """Fits LLaVA's projector.

    Args:
        model: whose projector is changed in place.
        tokens: (photos, tokens, channels), from `SemanticEncoder.encode_photo`.
        wanted: (photos, tokens, width), what the language model should read there.
    """
    projector = model.semantic_encoder.llava.model.multi_modal_projector
    rows, target = tokens.flatten(0, 1).double(), wanted.flatten(0, 1).double()
    mean, scale = rows.mean(dim=0), 1 / rows.std(dim=0, correction=0).clamp(min=1e-3)
    centre = target.mean(dim=0)
    standard = (rows - mean) * scale
    kernel = standard.T @ standard + _RIDGE * torch.eye(standard.shape[1], dtype=standard.dtype)
    weights = torch.linalg.solve(kernel, standard.T @ (target - centre)) * scale[:, None] * _CONTRAST
    # gelu(x) - gelu(-x) = x: half as many directions as the projector has hidden units pass it unchanged.
    half = min(projector.linear_1.out_features // 2, *weights.shape)
    left, size, right = torch.linalg.svd(weights, full_matrices=False)
    down, up = left[:, :half] * size[:half], right[:half]
    projector.linear_1.weight.zero_()
    projector.linear_1.bias.zero_()
    projector.linear_2.weight.zero_()
    for sign, start in ((1, 0), (-1, half)):
        projector.linear_1.weight[start : start + half] = sign * down.T.to(projector.linear_1.weight)
        projector.linear_1.bias[start : start + half] = -sign * (mean @ down).to(projector.linear_1.bias)
        projector.linear_2.weight[:, start : start + half] = sign * up.T.to(projector.linear_2.weight)
    projector.linear_2.bias.copy_(centre)
