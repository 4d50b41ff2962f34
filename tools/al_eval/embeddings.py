"""Texts as vectors, for al-eval's coherence: a Hugging Face encoder, its last layer pooled."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModel, AutoTokenizer

from alignlib import hub

transformers.logging.set_verbosity_error()  # it warns of texts that are too long, which are cut here and counted

# What tokenizers that know no limit report as theirs is an enormous number.
LONGEST = 8192


class Embedder:
    """`Embedder(model)(texts)`: (n, h) float32, one vector a text.

    pool: "mean" over a text's tokens, or "cls", its first token's. Padding takes no part in either. Raises OSError
    for what is no model. `cut` counts the texts that were longer than the model takes: they lose their right end.
    """

    def __init__(self, model: str, pool: str = "mean") -> None:
        if not sys.stderr.isatty():
            transformers.utils.logging.disable_progress_bar()
        here = Path(model).exists() or not hub.answers()  # what is in the cache is still found
        self.tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=here)
        self.model = AutoModel.from_pretrained(model, dtype=torch.float32, local_files_only=here).eval()
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        longest = getattr(self.model.config, "max_position_embeddings", None) or LONGEST
        self.limit = min(self.tokenizer.model_max_length, longest, LONGEST)
        self.pool, self.cut = pool, 0

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
