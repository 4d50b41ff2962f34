"""The engine's part: requests come one by one, and the last to come is the first to be done.

STANDIN_HOLD: nothing is done before so many requests have come (so that a later record is sure to be done first).
"""

import asyncio
import os

import torch
import transformers

from vllm._facts import keeps_to, only
from vllm.sampling_params import RequestOutputKind

PATH = "vllm.v1.engine.async_llm:AsyncLLM"


class AsyncLLM:
    @classmethod
    @keeps_to(f"{PATH}.from_engine_args")
    def from_engine_args(cls, engine_args, usage_context=None):
        print("INFO: an engine logs to standard output", flush=True)
        os.write(1, b"and so do its libraries\n")
        return cls(engine_args.given)

    def __init__(self, given):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(given["model"])
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(given["model"])
        self.processed = given["logprobs_mode"] == "processed_logprobs"
        self.waiting, self.running, self.hold = [], None, int(os.environ.get("STANDIN_HOLD", 0))

    @keeps_to(f"{PATH}.generate")
    def generate(self, prompt, sampling_params, request_id):
        return self._generate(prompt["prompt_token_ids"], sampling_params, request_id)

    async def _generate(self, ids, params, request_id):
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((ids, params, done))
        self.hold -= 1
        self.running = self.running or asyncio.create_task(self._run())
        completion = await done
        if params.output_kind is not RequestOutputKind.FINAL_ONLY:
            raise NotImplementedError("partial outputs")
        yield only("vllm.outputs:RequestOutput", request_id=request_id, outputs=[completion], finished=True)

    async def _run(self):
        while self.waiting:
            await asyncio.sleep(0)
            if self.hold <= 0:
                ids, params, done = self.waiting.pop()
                done.set_result(self._complete(ids, params))
        self.running = None

    @torch.inference_mode()
    def _complete(self, prompt, params):
        chance = torch.Generator().manual_seed(params.seed)
        ids, total, reason, stop = [], 0.0, None, None
        while reason is None:
            logits = self.model(torch.tensor([prompt + ids])).logits[0, -1].float()
            token, processed = _draw(logits, params, chance)
            ids.append(token)
            total += (processed if self.processed else logits).log_softmax(-1)[token].item()
            stops = [text for text in params.stop if text in self.tokenizer.decode(ids)]
            if token == self.tokenizer.eos_token_id or stops:
                reason, stop = "stop", stops[0] if stops else None
            elif len(ids) == params.max_tokens:
                reason = "length"
        return only("vllm.outputs:CompletionOutput", index=0, text="not what we write", token_ids=tuple(ids),
                    cumulative_logprob=None if params.logprobs is None else total, finish_reason=reason,
                    stop_reason=stop)

    @keeps_to(f"{PATH}.shutdown")
    def shutdown(self, timeout=None):
        self.model = None


def _draw(logits, params, chance):
    """A token, and the logits that it was drawn from."""
    if params.temperature == 0:
        return logits.argmax().item(), logits
    logits = logits / params.temperature
    if params.top_k:
        logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], -torch.inf)
    probs, places = logits.softmax(-1).sort(descending=True)
    logits = logits.index_fill(0, places[probs.cumsum(0) - probs >= params.top_p], -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=chance).item(), logits
