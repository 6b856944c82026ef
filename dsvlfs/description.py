"""A class's description, written by the model's own language model.

The paper has a large one write a paragraph of the class's distinguishing visual features (arXiv 2503.04006, section
3.1); the tiny model's writes a sentence that a person should read before it is used.
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .modeling import DSVLFSModel

REQUEST = "What does {a_thing} look like in a photo? Answer in one sentence: shape, parts, colours."


@torch.inference_mode()
def describe(model: "DSVLFSModel", class_name: str, *, max_tokens: int = 36) -> str:
    """Writes what a class looks like; the same text each time.

    Args:
        model: whose language model writes, as it was before any training of its adapters.
        class_name: to describe.
        max_tokens: that it may write; an unfinished sentence is cut at its last comma.

    Raises:
        InputError: the class name cannot be used.
    """
    processor, encoder = model.processor, model.semantic_encoder
    processor.question([(class_name, None)])  # refuses what a prompt must not hold
    thing = " ".join(class_name.split())
    a_thing = f"{'an' if thing[0].lower() in 'aeiou' else 'a'} {thing}"
    start = f"{a_thing[0].upper()}{a_thing[1:]} has"
    text = REQUEST.format(a_thing=a_thing)
    if processor.tokenizer.chat_template:
        text = processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
    ids = processor.tokenizer(text + start, return_tensors="pt", add_special_tokens=False).input_ids.to(model.device)
    with encoder.vlm.disable_adapter():
        written = encoder.llava.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            repetition_penalty=1.15,  # a small model goes in circles
            pad_token_id=processor.tokenizer.pad_token_id,
        )
    return _whole_sentence(start + processor.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))


def _whole_sentence(text: str) -> str:
    """The first sentence, or where there is no end, what comes before the last comma."""
    text = " ".join(text.split())
    for place, character in enumerate(text):
        if character in ".!?" and text[place + 1 : place + 2] in ("", " "):
            return text[: place + 1]
    return text.rpartition(",")[0].rstrip(" -") + "." if "," in text else text + "."
