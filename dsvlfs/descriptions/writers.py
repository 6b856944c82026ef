"""Language models that write a class's description: the checkpoint's own, any of transformers, or one that a server
runs.

A small one's text should be read before it is used.
"""

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, HTTPError, InferenceTimeoutError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import InputError
from ..inference.checks import MAX_DESCRIPTION, class_name_of

if TYPE_CHECKING:
    from ..modeling import DSVLFSModel

QUESTION = "What does {a_thing} look like in a photo? Answer in one sentence: shape, parts, colours."

MAX_TOKENS = 120
"""That a language model other than the checkpoint's may write."""


class Writer(Protocol):
    """Writes descriptions."""

    source: str
    """Who writes; texts are remembered under it."""

    def write(self, class_name: str) -> str:
        """What a class looks like.

        Raises:
            InputError: the class name cannot be used, or no text came.
        """


class CheckpointWriter:
    """The model's own language model, as it was before any training of its adapters; it writes the same each time.
    While it writes the adapters are off: let no other thread ask the model meanwhile.

    Args:
        model: whose language model writes.
        max_tokens: that it may write; an unfinished sentence is cut at its last comma.
    """

    def __init__(self, model: "DSVLFSModel", *, max_tokens: int = 36) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self.source = f"checkpoint {model.config.vlm_base or model.config.language_base}"

    @torch.inference_mode()
    def write(self, class_name: str) -> str:
        """As `Writer.write`."""
        processor, encoder = self.model.processor, self.model.semantic_encoder
        processor.question([(class_name, None)])  # refuses what a prompt must not hold
        a_thing = _with_article(class_name)
        start = f"{a_thing[0].upper()}{a_thing[1:]} has"  # a small model must be shown how to begin
        text = QUESTION.format(a_thing=a_thing)
        if processor.tokenizer.chat_template:
            asked = [{"role": "user", "content": text}]
            text = str(processor.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
        with encoder.vlm.disable_adapter():
            written = _generate(encoder.llava, processor.tokenizer, text + start, self.max_tokens)
        return _whole_sentence(start + written)


class TransformersWriter:
    """A causal language model of transformers; it writes the same each time.

    Args:
        model_id: of the hub, or a folder.

    Raises:
        InputError: (when it first writes) the model cannot be had.
    """

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id
        self.source = f"transformers {model_id}"

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        try:
            return AutoModelForCausalLM.from_pretrained(self.model_id), AutoTokenizer.from_pretrained(self.model_id)
        except (OSError, ValueError, ImportError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"The language model {self.model_id} cannot be loaded ({reason}); name a causal language model of the "
                "hub, or its folder."
            ) from error

    @torch.inference_mode()
    def write(self, class_name: str) -> str:
        """As `Writer.write`."""
        a_thing = _with_article(class_name)
        model, tokenizer = self._parts
        text = QUESTION.format(a_thing=a_thing)
        if tokenizer.chat_template:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            return _answer(_generate(model, tokenizer, text, MAX_TOKENS), self.source)
        start = f"{a_thing[0].upper()}{a_thing[1:]} has"  # it was not taught to answer, only to go on
        return _answer(start + _generate(model, tokenizer, f"{text}\n{start}", MAX_TOKENS), self.source)


class EndpointWriter:
    """A language model behind a chat completions interface as OpenAI defined it.

    Args:
        base_url: of the server, such as "http://localhost:8000/v1".
        model: its name there.
        api_key: None sends none of the user's.
        timeout: of a request, in seconds.
    """

    def __init__(self, base_url: str, model: str, *, api_key: str | None = None, timeout: float = 60) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"The address {base_url} is none of a server; give one such as http://localhost:8000/v1.")
        self.base_url, self.model = base_url.rstrip("/"), model
        self.source = f"{self.base_url} {model}"
        # Without a key the client would send the hub's, to whatever server this is.
        self._client = InferenceClient(base_url=self.base_url, api_key=api_key or "none", timeout=timeout)

    def write(self, class_name: str) -> str:
        """As `Writer.write`."""
        question = QUESTION.format(a_thing=_with_article(class_name))
        try:
            reply = self._client.chat_completion([{"role": "user", "content": question}], model=self.model)
            text = reply.choices[0].message.content
        except HfHubHTTPError as error:
            status = error.response.status_code
            raise InputError(
                f"The server {self.base_url} answered with status {status} ({error.response.reason_phrase}); check "
                f"the address, the model's name {self.model} and the key."
            ) from error
        except InferenceTimeoutError as error:
            raise InputError(f"The server {self.base_url} did not answer in time; try again later.") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"The server {self.base_url} answered with something other than a chat completion; check the address."
            ) from error
        except (HTTPError, OSError) as error:
            raise InputError(
                f"The server {self.base_url} cannot be reached ({error}); check the address and the network."
            ) from error
        return _answer(text or "", self.source)


def _with_article(class_name: str) -> str:
    thing = class_name_of(class_name)
    return f"{'an' if thing[0].lower() in 'aeiou' else 'a'} {thing}"


def _generate(model: Any, tokenizer: Any, text: str, max_tokens: int) -> str:
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids.to(model.device)
    written = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        repetition_penalty=1.15,  # a small model goes in circles
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    return tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def _answer(text: str, source: str) -> str:
    """The sentence asked for, of what a language model wrote."""
    text = re.sub(r"<think>.*?(</think>|$)", "", text, flags=re.DOTALL).strip().strip("\"'“”*")
    if not text:
        raise InputError(f"{source} wrote nothing; try another language model.")
    return _whole_sentence(text)[:MAX_DESCRIPTION]


def _whole_sentence(text: str) -> str:
    """The first sentence, or where there is no end, what comes before the last comma."""
    text = " ".join(text.split())
    for place, character in enumerate(text):
        if character in ".!?" and text[place + 1 : place + 2] in ("", " "):
            return text[: place + 1]
    return text.rpartition(",")[0].rstrip(" -") + "." if "," in text else text + "."
