"""Training steps of a Llama, timed: flat packs beside dense masks, padded rows and TRL's DPOTrainer.

A token of the data is one of a group's K * (prompt + completion), which padded rows compute; packs hold prompt +
K * completion of them. A step is that of al-train-exo: passes, clipping, AdamW on float32 weights under bf16.
"""

import statistics
import time
from dataclasses import dataclass
from functools import partial

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from alignlib.models.example import Example
from alignlib.models.policy import Policy
from alignlib.training import engine, passes
from helpers import tiny

PASS = 8192  # tokens of a pass, --pack-tokens of the trainers
WARM = 3  # the first steps, which do not count
WAYS = {"flat": (True, True), "dense": (True, False), "padded": (False, False)}  # Policy.shared and .flat
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # floating-point operations a second in bf16, without sparsity


@dataclass
class Work:
    """What is trained on: `groups` prompts with K completions each."""

    prompt: int
    completion: int
    k: int
    groups: int

    @classmethod
    def holding(cls, prompt: int, completion: int, k: int, tokens: int) -> "Work":
        return cls(prompt, completion, k, max(1, tokens // (k * (prompt + completion))))

    @property
    def data_tokens(self) -> int:
        return self.groups * self.k * (self.prompt + self.completion)

    def examples(self, vocabulary: int) -> list[Example]:
        draw = partial(torch.randint, 2, vocabulary)
        return [Example(draw((self.prompt,)).tolist(), draw((self.k, self.completion)).tolist(),
                        {"rewards": torch.randn(self.k).tolist(), "ref_logps": torch.randn(self.k).tolist()})
                for _ in range(self.groups)]

    def flops(self, model: torch.nn.Module) -> float:
        """Floating-point operations that a step needs where prompts are computed once, forward and backward.

        6 a weight and token: the head's for predicted tokens alone; 12 a layer, channel and pair of tokens of which
        one sees the other. What is computed again (logits in the backward pass) does not count.
        """
        p, c, config = self.prompt, self.completion, model.config
        body = sum(weight.numel() for name, weight in model.named_parameters()
                   if weight.ndim == 2 and "embed" not in name and "lm_head" not in name)
        head = config.vocab_size * config.hidden_size
        pairs = p * (p + 1) / 2 + self.k * (p * c + c * (c + 1) / 2)
        weights = 6 * (body * (p + self.k * c) + head * self.k * c)
        return self.groups * (weights + 12 * config.num_hidden_layers * config.hidden_size * pairs)


def sum_once(work: Work) -> int:
    """Tokens of the data with each prompt counted once."""
    return work.groups * (work.prompt + work.k * work.completion)


def policy(shape: dict, device: str) -> Policy:
    """Untrained, to be trained as on a GPU: float32 weights, computing in bf16."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).to(device).eval()
    return Policy(model, words(shape["vocab_size"]), autocast=torch.bfloat16, train=True)


def words(vocabulary: int) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of as many words, each a token: the first ends a text, the second pads."""
    names = ["<eos>", "<pad>", *(f"w{i}" for i in range(2, vocabulary))]
    whole_words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    whole_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole_words.add_special_tokens(names[:2])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=whole_words, eos_token="<eos>", pad_token="<pad>")


class Meter:
    """Seconds and peak bytes of device memory between `start` and `stop`."""

    def __init__(self, device: str):
        self.cuda = torch.cuda if device.startswith("cuda") else None
        self.seconds: list[float] = []
        self.bytes = 0

    def start(self) -> None:
        if self.cuda:
            self.cuda.synchronize()
            self.cuda.reset_peak_memory_stats()
        self.began = time.perf_counter()

    def stop(self) -> None:
        if self.cuda:
            self.cuda.synchronize()
            self.bytes = max(self.bytes, self.cuda.max_memory_allocated())
        self.seconds.append(time.perf_counter() - self.began)

    def rate(self, amount: float) -> float:
        """Of the median step after the warm-up."""
        return amount / statistics.median(self.seconds[WARM:])


def ours(model: Policy, work: Work, folder, loss: str, ways: tuple[str, ...], rounds: int) -> dict[str, Meter]:
    """Steps of each way, in turns."""
    recipe = tiny.recipe(folder, batch_size=work.groups, pack_tokens=PASS, lr=1e-6)
    examples, objective = work.examples(model.core.config.vocab_size), tiny.contrast(loss, ref="ref_logps")
    place = engine.PlainEngine(model, recipe, rounds * len(ways))
    meters, settled = {way: Meter(model.device.type) for way in ways}, (model.shared, model.flat)
    model.core.train()
    for _ in range(rounds):
        for way, meter in meters.items():
            model.shared, model.flat = WAYS[way]
            meter.start()
            passes.train_step(range(work.groups), model, examples, objective, recipe, place)
            meter.stop()
    model.shared, model.flat = settled
    return meters


def theirs(model: torch.nn.Module, work: Work, folder, rounds: int) -> Meter:
    """Steps of TRL's DPOTrainer: reference computed before, no checkpointing, as many tokens in a pass as ours.

    TRL 1.16 computes logits in chunks whatever one asks for. Padding-free rows it has none for DPO, but none here are
    padded.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Steps(transformers.TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            meter.start()

        def on_step_end(self, *args, **kwargs):
            meter.stop()

    tokenizer, meter = words(model.config.vocab_size), Meter(model.device.type)

    def text(tokens: list[int]) -> str:
        return " ".join(tokenizer.convert_ids_to_tokens(tokens))

    rows = [{"prompt": text(one.prompt), "chosen": f" {text(one.completions[0][1:])}",  # TRL puts <eos> after them
             "rejected": f" {text(one.completions[1][1:])}"} for one in work.examples(model.config.vocab_size)]
    one_pass = min(work.groups, max(1, PASS // (2 * (work.prompt + work.completion))))
    config = DPOConfig(
        output_dir=str(folder), use_cpu=not meter.cuda, bf16=True, gradient_checkpointing=False,
        precompute_ref_log_probs=True, per_device_train_batch_size=one_pass, max_length=None,
        gradient_accumulation_steps=-(-work.groups // one_pass), num_train_epochs=rounds, learning_rate=1e-6,
        logging_steps=1000, save_strategy="no", report_to="none", disable_tqdm=True)
    trainer = DPOTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
                         callbacks=[Steps()])
    trainer.train()
    return meter


def report(name: str, meter: Meter, work: Work, flops: float | None = None) -> tuple[float, float | None]:
    """Print a line; data tokens a second and MFU (None for a device of unknown peak, or where no flops are given)."""
    device = torch.cuda.get_device_name() if meter.cuda else "cpu"
    peak = next((peak for key, peak in PEAK.items() if key in device), None)
    used = meter.rate(flops) / peak if flops and peak else None
    rate = meter.rate(work.data_tokens)
    print(f"{device}, {work.prompt} + {work.completion}, K = {work.k}, {name:6}: {rate:8.0f} tokens/s, "
          f"MFU {f'{used:.0%}' if used else '-'}, {meter.bytes / 2**30:.1f} GiB")
    return rate, used
