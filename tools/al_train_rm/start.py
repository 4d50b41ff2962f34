"""A reward model or classifier to begin with."""

from typing import Any

import click
import torch
import transformers
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from alignlib.models.load import dtype_for, is_classifier, load, load_config, load_policy, load_tokenizer
from alignlib.models.logps import Head
from alignlib.models.policy import Model, RewardModel, gather_weights, is_sharded, scale_and_cap


def new_reward(path: str, class_names: list[str] | None, device: str = "auto", dtype: str = "auto",
               seed: int = 0) -> RewardModel:
    """The model at `path`, policy or classifier, with a head to train: one label, or one a class.

    A policy's new head starts small (deviation 1 / sqrt(H + 1), as in Stiennon et al. 2020), drawn from `seed`; a
    `score` that its checkpoint has stays as it is, and its output head is left out.
    """
    config = load_config(path)
    settings: dict[str, Any] = {"num_labels": len(class_names or [""])}
    if class_names:
        settings |= {"id2label": dict(enumerate(class_names)),
                     "label2id": {name: i for i, name in enumerate(class_names)}}
    if not is_classifier(path):
        settings |= {"fresh": ("score",), "spare": language_head}
    torch.manual_seed(seed)
    model, lacking = load(transformers.AutoModelForSequenceClassification, path, device, torch.float32, **settings)
    if "score.weight" in lacking:
        with gather_weights([model.score.weight], change=True):
            torch.nn.init.normal_(model.score.weight, std=(model.score.in_features + 1) ** -0.5)
    tokenizer = load_tokenizer(path)
    model.config.pad_token_id = config.pad_token_id if config.pad_token_id is not None else tokenizer.pad_token_id
    wanted = dtype_for(dtype, model.device, config)
    return RewardModel(model, tokenizer, autocast=wanted if wanted != torch.float32 else None, train=True)


def language_head(model: PreTrainedModel, names: set[str]) -> set[str]:
    """Those of a checkpoint's names that are the output head's of a policy of the model's configuration."""
    with torch.device("meta"):
        policy = transformers.AutoModelForCausalLM.from_config(model.config, trust_remote_code=False)
    body = f"{policy.base_model_prefix}."
    head = {name: weight for name, weight in policy.state_dict().items() if not name.startswith(body)}
    return names & {*head, *revert_weight_conversion(policy, head)}  # GPT-NeoX's has another name in files


def output_head(path: str, model: Model) -> Head:
    """The head with which the policy at `path` says words, over another model's hidden states.

    Tied to the embeddings, it is `model`'s embeddings; of its own, it stays as it is. Raises UsageError for no policy.
    """
    config = model.core.config
    if is_classifier(path):
        raise click.UsageError(f"{path}: a reward model or classifier; --lm-coef needs a policy's output head")
    if is_sharded(model.model):
        raise click.UsageError("--lm-coef does not go with --zero 3")
    if config.get_text_config().tie_word_embeddings:
        return lambda hidden: scale_and_cap(functional.linear(hidden, model.core.get_input_embeddings().weight), config)
    head = load_policy(path, str(model.device), "fp32").core.get_output_embeddings().requires_grad_(False)
    return lambda hidden: scale_and_cap(head(hidden), config)
