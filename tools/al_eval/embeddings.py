"""Texts as vectors, for al-eval's coherence: a Hugging Face encoder, its last layer pooled."""

import sys
from collections.abc import Sequence

import click
import numpy as np
import torch
import transformers
from transformers import AutoModel, PreTrainedModel

from alignlib.models import adapters, checkpoint, load, sources, tokenizer_files

transformers.logging.set_verbosity_error()  # it warns of texts that are too long, which are cut here and counted

# What tokenizers that know no limit report as theirs is an enormous number.
LONGEST = 8192


class Embedder:
    """`Embedder(model)(texts)`: (n, h) float32, one vector a text.

    pool: "mean" over a text's tokens, or "cls", its first token's. Padding takes no part in either. Raises OSError
    or UsageError for what is no model. `cut` counts the texts that were longer than the model takes: they lose their
    right end.
    """

    def __init__(self, model: str, pool: str = "mean") -> None:
        if not sys.stderr.isatty():
            transformers.utils.logging.disable_progress_bar()
        if adapters.find(model):
            raise click.UsageError(f"{model}: an adapter; texts are made vectors by a whole encoder")
        load.load_config(model)
        self.tokenizer = tokenizer_files.load_tokenizer(model)
        loaded, _ = checkpoint.read(sources.loader_for(AutoModel, model), model, torch.float32, ("pooler.",), heads)
        self.model = loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        longest = getattr(self.model.config, "max_position_embeddings", None) or LONGEST
        self.limit = min(self.tokenizer.model_max_length, longest, LONGEST)
        self.pool, self.cut = pool, 0

    def must_know(self, text: str) -> None:
        """Raises ValueError for a text with a token that the model has no row for."""
        rows = self.model.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > rows and (new := [i for i in self.tokenizer(text)["input_ids"] if i >= rows]):
            token = self.tokenizer.convert_ids_to_tokens(new[0])
            raise ValueError(f"token {new[0]} ({token}) has no row in the encoder, which knows {rows} tokens")

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        rows = self.tokenizer(list(texts))["input_ids"]
        self.cut += sum(len(row) > self.limit for row in rows)
        rows = [row[: self.limit] for row in rows]
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)  # from lengths: pad may be a token that is used
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (n, width, h)
        if self.pool == "cls":
            return hidden[:, 0].cpu().numpy()
        weight = mask.unsqueeze(-1).to(hidden.dtype)  # (n, width, 1)
        return ((hidden * weight).sum(1) / weight.sum(1)).cpu().numpy()


def heads(model: PreTrainedModel, names: set[str]) -> set[str]:
    """Those of the names that are no part of the body: a checkpoint's heads, which are not asked here."""
    body = {model.base_model_prefix, *(name.split(".")[0] for name in model.state_dict())}
    return {name for name in names if name.split(".")[0] not in body}
