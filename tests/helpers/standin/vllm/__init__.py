"""Stands for vLLM where there is no GPU: its released signatures (vllm_facts.json) over a small model in torch."""

from vllm._facts import FACTS, bound

__version__ = FACTS["version"]


class AsyncEngineArgs:
    def __init__(self, *args, **given):
        self.given = bound("vllm:AsyncEngineArgs", args, given)
        if self.given.get("logprobs_mode", "raw_logprobs") not in FACTS["logprobs_mode"]:
            raise ValueError("logprobs_mode")


class SamplingParams:
    """Refuses what the released one refuses, of what may be asked of it here."""

    def __init__(self, *args, **given):
        values = bound("vllm:SamplingParams", args, given)
        self.temperature, self.top_p, self.top_k = values["temperature"], values["top_p"], values["top_k"]
        self.seed, self.max_tokens, self.logprobs = values["seed"], values["max_tokens"], values["logprobs"]
        self.stop, self.output_kind = values["stop"], values["output_kind"]
        if not 0 <= self.temperature <= 2 or not 0 < self.top_p <= 1:
            raise ValueError("temperature or top_p")
        if self.stop and not values["detokenize"]:
            raise ValueError("stop strings are only supported when detokenize is True")
        if not 0 <= self.seed < 2**63:
            raise ValueError("seed")
