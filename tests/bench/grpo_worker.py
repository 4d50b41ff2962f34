"""GRPO in a process of its own, for test_ppo.py: `grpo_worker.py ours`, or `theirs` in TRL's environment.

A line {model, data, output, reward, prompts, answers, tokens, steps, kl} on stdin starts a training; a line {seconds,
log} on stdout says what processor time it took, and of every step its reward, the answers' mean length, the loss and
the gradient's norm.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from helpers.beside import serve

RATE = 1e-5


def ours(model: str, data: str, output: str, reward: str, prompts: int, answers: int, tokens: int, steps: int,
         kl: float) -> list[dict[str, float]]:
    """al-train-ppo, its rewards by the function `score` of the file `reward`."""
    from al_train_ppo import main

    args = {"-o": output, "--method": "grpo", "--reward": f"py:{reward}:score", "-n": answers, "--prompts": prompts,
            "--batch-size": prompts * answers, "-m": tokens, "--steps": steps, "--kl-coef": kl, "--lr": RATE,
            "--schedule": "constant", "--warmup": 0, "--dtype": "fp32", "--device": "cpu"}
    try:
        main([model, data, *(str(part) for pair in args.items() for part in pair)])
    except SystemExit as end:
        if end.code:
            raise
    entries = [json.loads(line) for line in Path(output, "log.jsonl").read_text().splitlines()]
    return [{name: entry[name] for name in ("reward", "length", "loss", "grad_norm")} for entry in entries]


def theirs(model: str, data: str, output: str, reward: str, prompts: int, answers: int, tokens: int, steps: int,
           kl: float) -> list[dict[str, float]]:
    """GRPOTrainer, a prompt's answers a pass; it draws for all prompts of a step together."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    found = importlib.util.spec_from_file_location("reward", reward)
    rule: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(rule)

    def judge(prompts: list[str], completions: list[str], **others: Any) -> list[float]:
        return [number for prompt, text in zip(prompts, completions, strict=True)
                for number in rule.score({"prompt": prompt}, [text])]

    config = GRPOConfig(
        output_dir=output, use_cpu=True, bf16=False, gradient_checkpointing=False, learning_rate=RATE, adam_beta2=0.95,
        lr_scheduler_type="constant", per_device_train_batch_size=answers, gradient_accumulation_steps=prompts,
        num_generations=answers, max_completion_length=tokens, max_steps=steps, temperature=1.0, beta=kl,
        loss_type="grpo", shuffle_dataset=False, logging_steps=1, save_strategy="no", report_to="none",
        disable_tqdm=True)
    policy = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    trainer = GRPOTrainer(policy, reward_funcs=judge, args=config,
                          train_dataset=Dataset.from_json(data, cache_dir=f"{output}.cache"),
                          processing_class=transformers.AutoTokenizer.from_pretrained(model))
    trainer.train()
    trainer.save_model()
    names = {"reward": "reward", "length": "completions/mean_length", "loss": "loss", "grad_norm": "grad_norm"}
    return [{name: entry[theirs] for name, theirs in names.items()}
            for entry in trainer.state.log_history if "reward" in entry]


if __name__ == "__main__":
    serve("log", ours, theirs)
