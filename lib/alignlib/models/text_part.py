"""The language model in a folder whose model reads pictures or sounds too (...ForConditionalGeneration)."""

import re
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from alignlib.models.checkpoint import without_zero


class TextPart:
    """As an Auto class: the family's causal language model, of the whole model's text weights.

    The whole is loaded, so that transformers finds every weight under whatever name it was saved; what does not read
    text is then let go.
    """

    def __init__(self, whole: type[PreTrainedModel]):
        self.whole = whole

    def from_pretrained(self, path: str, /, **settings: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        """The model, and the report on the load of the whole. Raises ValueError where its text part is another's."""
        del settings["trust_remote_code"]  # it is never another
        whole, info = self.whole.from_pretrained(path, trust_remote_code=False, **settings)
        decoder, head = whole.get_decoder(), whole.get_output_embeddings()
        config = decoder.config
        config.tie_word_embeddings = head.weight is decoder.get_input_embeddings().weight
        with without_zero(), torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        if type(model.base_model) is not type(decoder):
            raise ValueError(f"the text part of a {type(whole).__name__} is no {type(model).__name__}")
        setattr(model, model.base_model_prefix, decoder)
        model.set_output_embeddings(head)
        model.generation_config = whole.generation_config
        model.name_or_path = config.name_or_path = path
        place = next(name for name, module in whole.named_modules() if module is decoder)
        before = rf"^{place.rpartition('.')[2]}\.(model|lm_head)\."  # as transformers named it until 4.51
        model.names_in_whole = {rf"^{re.escape(place)}\.": f"{model.base_model_prefix}.", before: r"\1."}
        return model, info


def is_of_text(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight's name, as an adapter has it, may be one of the text part's, not of what sees or hears."""
    inner = name.removeprefix(f"{model.base_model_prefix}.").partition(".")[0]
    return inner in dict(model.base_model.named_children()) or inner == "lm_head"


def in_text(names: Mapping[str, str], name: str) -> str:
    """What the text part calls a weight that an adapter over the whole names."""
    for pattern, its in names.items():
        name = re.sub(pattern, its, name)
    return name


def find_text_part(config: PreTrainedConfig) -> TextPart | None:
    """How to load the text part of such a model; None where transformers has no language model for it."""
    text = config.get_text_config(decoder=True)
    name = (config.architectures or [""])[0]
    whole = getattr(transformers, name, None) if name.endswith("ForConditionalGeneration") else None
    known = text is not config and type(text) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    return TextPart(whole) if known and whole is not None else None
