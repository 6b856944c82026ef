"""The added token's row among a language model's embeddings, where it alone is trained.

peft keeps it beside them, and copies the whole vocabulary at every pass to have it there: a quarter of the time that
SmolLM2-135M takes to read a question, and 108 MiB. Nobody trains in inference, so there it is put in its place once.
"""

from peft import PeftModel
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import nn


def merge_token(vlm: PeftModel) -> None:
    """Puts the row among the embeddings; what is saved stays as it was. A model without such a row is left alone, and
    so are embeddings that are offloaded."""
    for layer in _layers(vlm):
        if not layer.merged and layer.base_layer.weight.device.type != "meta":
            layer.merge()


def part_token(vlm: PeftModel) -> None:
    """Undoes `merge_token`, so that another row can be loaded or learned."""
    for layer in _layers(vlm):
        if layer.merged:
            layer.unmerge()


def _layers(vlm: PeftModel) -> list[TrainableTokensLayer]:
    """Of the embeddings; a last layer that shares their matrix follows them."""
    layers = (module for module in vlm.modules() if isinstance(module, TrainableTokensLayer))
    return [layer for layer in layers if isinstance(layer.base_layer, nn.Embedding)]
