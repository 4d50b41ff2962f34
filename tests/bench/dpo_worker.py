"""DPO in a process of its own, for test_trl.py: `dpo_worker.py ours`, or `theirs` in TRL's environment.

A line {model, data, output, dtype, batch, lr, checkpointing} on stdin starts a training; a line {seconds, losses} on
stdout says what processor time it took and the loss of each step.
"""

import json
from pathlib import Path

from helpers.beside import serve


def ours(model: str, data: str, output: str, dtype: str, batch: int, lr: float, checkpointing: bool) -> list[float]:
    """al-train-exo, on records with two completions, the first the better one."""
    from al_train_exo import main

    args = {"-o": output, "--loss": "dpo-pref", "--beta-pi": 0.1, "--dtype": dtype, "--device": "cpu",
            "--batch-size": batch, "--lr": lr, "--schedule": "constant", "--warmup": 0}
    more = ["--gradient-checkpointing"] if checkpointing else []
    try:
        main([model, data, *(str(part) for pair in args.items() for part in pair), *more])
    except SystemExit as end:
        if end.code:
            raise
    return [json.loads(line)["loss"] for line in Path(output, "log.jsonl").read_text().splitlines()]


def theirs(model: str, data: str, output: str, dtype: str, batch: int, lr: float, checkpointing: bool) -> list[float]:
    """DPOTrainer, on prompt, chosen, rejected in the file's order, the reference computed before."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(
        output_dir=output, use_cpu=True, bf16=dtype == "bf16", gradient_checkpointing=checkpointing, beta=0.1,
        per_device_train_batch_size=batch, learning_rate=lr, lr_scheduler_type="constant", adam_beta2=0.95,
        precompute_ref_log_probs=True, train_sampling_strategy="sequential", num_train_epochs=1,
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True)
    policy = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    passes = []
    policy.register_forward_hook(lambda *_: passes.append(1))
    trainer = DPOTrainer(policy, args=config, train_dataset=Dataset.from_json(data, cache_dir=f"{output}.cache"),
                         processing_class=transformers.AutoTokenizer.from_pretrained(model))
    trainer.train()
    trainer.save_model()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if len(passes) != 2 * len(losses):  # a batch once for the reference, once to train: no cache spared it anything
        raise ValueError(f"{len(passes)} passes in {len(losses)} steps")
    return losses


if __name__ == "__main__":
    serve("losses", ours, theirs)
