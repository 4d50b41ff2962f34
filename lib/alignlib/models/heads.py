"""The heads of reward models and classifiers: how they are computed, and what those who save them call them.

transformers    score.weight, or classifier.weight and its like, under the name of a sequence classifier
DeepSpeed-Chat  v_head.weight beside rwtransformer.* (in some releases rwtranrsformer.*)
trlx's example  v_head.weight beside transformer.*: CarperAI's reward model of summaries
trl             v_head.summary.weight and .bias beside a causal model's weights, in some files pretrained_model.*
OpenRLHF        score.weight, or what value_head_prefix in config.json says, under the name of a class of its own
al-train-ppo    score.weight and .bias under transformers' name: a critic that began from one of the last two

The configuration beside the four in the middle names a causal model, or a class that transformers does not have.
"""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from alignlib.model_names import parts
from alignlib.models import checkpoint, sources

HEADS = ("score", "classifier", "classifier.out_proj", "classification_head.out_proj", "logits_proj")  # transformers'
BODIES = {"v_head": ("rwtransformer.", "rwtranrsformer.", "transformer."), "v_head.summary": ("pretrained_model.", "")}
OPENRLHF = ("value_head_prefix", "normalize_reward", "mean", "std")  # what its configurations say of the head


# -- computed --------------------------------------------------------------------------------------------------


class Float32Linear(nn.Linear):
    """A linear layer that is computed in float32 at least, whatever its weights and its input are kept in."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.to(dtype), self.weight.to(dtype), self.bias if self.bias is None else
                                     self.bias.to(dtype))


def compute_in_float32(model: PreTrainedModel) -> None:
    """Have the layer that gives a classifier's logits computed in float32, in place: its weights stay what they are.

    In bf16 a score of 3 is a multiple of 1/64: answers that are not alike would tie.
    """
    body = f"{model.base_model_prefix}."
    layers = [(name, layer) for name, layer in model.named_modules()
              if type(layer) is nn.Linear and not name.startswith(body)]
    if layers and layers[-1][1].out_features == model.config.num_labels:
        name, plain = layers[-1]
        model.set_submodule(name, in_float32(plain))


def in_float32(plain: nn.Linear) -> Float32Linear:
    """A layer of the same weights that is computed in float32."""
    head = Float32Linear(plain.in_features, plain.out_features, plain.bias is not None, device="meta")
    head.weight, head.bias = plain.weight, plain.bias
    return head.train(plain.training)


# -- saved -----------------------------------------------------------------------------------------------------


def count_labels(path: str) -> int | None:
    """The labels of a classifier by the shape of its head, where its configuration does not say; None where it does."""
    config, _ = PreTrainedConfig.get_config_dict(parts(path).folder, local_files_only=True)  # by now it is here
    if config.get("num_labels") or config.get("id2label"):
        return None
    weights = checkpoint.weights(path)
    return next((len(weights[f"{name}.weight"]) for name in HEADS if f"{name}.weight" in weights), None)


@dataclass
class ValueHead:
    """The head of a reward model that no sequence classifier's folder holds; as an Auto class it loads the whole model.

    name         of the linear layer, in the checkpoint
    body         what the names of the transformer's weights begin with, there alone
    mean, scale  what is taken from a score, and what it is then divided by
    """

    weights: dict[str, Tensor]
    name: str
    body: str = ""
    mean: float = 0.0
    scale: float = 1.0

    def from_pretrained(self, path: str, /, **settings: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        """The sequence classifier of the configuration's family, with these weights. Raises ValueError for none."""
        del settings["trust_remote_code"]  # it is never another
        weight = self.weights[f"{self.name}.weight"]
        named = {name: settings.pop(name) for name in sources.LABELS if name in settings}
        config = transformers.AutoConfig.from_pretrained(parts(path).folder, trust_remote_code=False,
                                                         **{"num_labels": len(weight), **named})
        for name in OPENRLHF:  # said of this head, not of what may be trained from it
            vars(config).pop(name, None)
        config.get_text_config().pad_token_id = None  # read at the last token, were it the padding's
        family = classifier_type(config)
        state = {name.removeprefix(self.body): weight for name, weight in self.weights.items()
                 if not name.startswith(f"{self.name}.")}
        state["score.weight"] = weight if self.scale == 1 else weight.float() / self.scale
        model, info = sources.from_state(family, path, config, state, **settings)
        if self.mean or f"{self.name}.bias" in self.weights:  # transformers' head has no place for it
            bias = self.weights.get(f"{self.name}.bias", torch.zeros(len(weight))).float()
            model.score.bias = nn.Parameter((bias - self.mean) / self.scale)
        return model, info


def classifier_type(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The sequence classifier of a configuration's family. Raises ValueError where transformers has none."""
    kinds = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if type(config) not in kinds:
        raise ValueError(f"transformers has no sequence classifier of a {config.model_type}'s kind")
    kind: type[PreTrainedModel] = kinds[type(config)]
    return kind


def names_classifier(config: PreTrainedConfig) -> bool:
    """Whether a configuration says that it is a sequence classifier's."""
    return any("Classification" in name for name in config.architectures or ())


def find_value_head(path: str, config: PreTrainedConfig) -> ValueHead | None:
    """The head in a folder that holds a reward model as another trainer saves it; None for any other folder."""
    weights = checkpoint.weights(path)
    for name, bodies in BODIES.items():
        body = next((body for body in bodies if any(key.startswith(body) for key in weights)), None)
        if f"{name}.weight" in weights and body is not None:
            return ValueHead(weights, name, body)
    prefix = getattr(config, "value_head_prefix", None)
    name = prefix or "score"
    plain = names_classifier(config) and not prefix and f"{name}.bias" not in weights
    if plain or f"{name}.weight" not in weights:
        return None
    normalized = getattr(config, "normalize_reward", False)
    mean, scale = ((getattr(config, "mean", 0.0), getattr(config, "std", 1.0)) if normalized else (0.0, 1.0))
    return ValueHead(weights, name, mean=mean, scale=scale)
