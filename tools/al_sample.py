"""Sample completions of prompts from a policy.

in    {"prompt": "Human: hi\\n\\nAssistant:"}
out   {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Hm"], "finish_reasons": ["stop", "length"]}
pipe  al-sample sft -n 4 prompts.jsonl | al-score rm > scored.jsonl
"""

import click

from alignlib import options, recipe, records

OLD = {*records.OF_COMPLETIONS, "condition"}  # goes with completions that a record had


@options.command(reads=("prompt",), writes=("completions", "finish_reasons", "completion_ids", "temperatures",
                                            "condition", "logps", "logps_temperature"))
@click.argument("model")
@options.filter_options
@click.option("-n", "number", type=click.IntRange(min=1), default=1, help="Completions a prompt (and temperature).")
@click.option("-t", "--temperature", "temperatures", type=options.Finite(min=0), multiple=True, default=(1.0,),
              help="May be given several times; 0 is greedy.")
@click.option("--greedy", is_flag=True, help="The same as --temperature 0.")
@click.option("--top-p", type=options.Finite(0, 1, min_open=True), default=1.0, help="Nucleus sampling.")
@click.option("--top-k", type=click.IntRange(min=0), default=0, help="Of the K most likely tokens; 0: of all.")
@click.option("-m", "--max-new-tokens", type=click.IntRange(min=1), default=128,
              help="A completion is cut there.")
@click.option("--stop", multiple=True, help="A text that ends a completion and is left out of it; may be repeated.")
@click.option("--condition", default=None, help="Text to put before each prompt, for sampling only.")
@click.option("--logps", is_flag=True,
              help="Also ids, and the log-probability of each completion given the bare prompt.")
@click.option("--ids", is_flag=True, help="Also the completions' token ids.")
@click.option("--seed", type=int, default=0, help="Of the draws.")
@click.option("--batch-tokens", type=click.IntRange(min=1), default=16384, help="Tokens on the device at once.")
@click.option("--window", type=click.IntRange(min=1), default=64, help="Records that are batched together.")
@click.option("--max-prompt", type=click.IntRange(min=1),
              help="Tokens of a prompt.  [default: what the context leaves]")
@click.option("--keep-prompt", type=click.Choice(["end", "start"]), default="end",
              help="Which end of a too long prompt stays.")
@click.option("--on-long", type=click.Choice(["truncate", "skip", "fail"]), default="truncate",
              help="What a too long prompt does; counted in the summary.")
@recipe.device_options
def main(model, files, output, resume, on_error, rejects, shard, number, temperatures, greedy, top_p, top_k,
         max_new_tokens, stop, condition, logps, ids, seed, batch_tokens, window, max_prompt, keep_prompt, on_long,
         dtype, device):
    """Sample completions of each prompt from the policy MODEL. Streams, a window of records at a time."""
    from alignlib import decode, models
    from alignlib.tokens import Example

    if not all(stop):
        raise click.UsageError("--stop: an empty text would stop everything")
    if greedy and click.get_current_context().get_parameter_source("temperatures").name == "COMMANDLINE":
        raise click.UsageError("--greedy is --temperature 0: give one of the two")
    summary = options.Summary()
    policy = models.load_policy(model, device, dtype)
    if max_new_tokens >= policy.context:
        raise click.UsageError(f"--max-new-tokens {max_new_tokens}: the model's context is {policy.context} tokens")
    limits = {"max_length": min(policy.context, 1 << 20), "keep": keep_prompt, "on_long": on_long,
              "max_prompt": min(max_prompt or policy.context, policy.context - max_new_tokens),
              "max_completion": max_new_tokens + 1}
    encoder = models.encoder(policy, **limits)
    # Log-probabilities are of the bare prompt, which is cut as the one that was sampled from was, and counted there.
    bare = models.encoder(policy, **{**limits, "on_long": "truncate"}) if logps else None
    how = decode.Sampling(max_new_tokens, top_k, top_p, stop, seed)
    plan = [t for t in ((0.0,) if greedy else temperatures) for _ in range(number)]
    # Log-probabilities are those of what was drawn from; several temperatures, or none, mean 1.
    temperature = plan[0] if len(set(plan)) == 1 and plan[0] > 0 else 1.0

    def prepare(record):
        records.require(record, "prompt")
        return encoder.fit(Example(encoder.prompt(record, condition or ""), [])).prompt

    def finish(line, draws):
        record = {name: value for name, value in line.record.items() if name not in OLD}
        record["completions"] = [draw.text for draw in draws]
        record["finish_reasons"] = [draw.reason for draw in draws]
        if ids or logps:  # log-probabilities are of these ids: their text may encode to others
            record["completion_ids"] = [draw.ids for draw in draws]
        if len(set(plan)) > 1:
            record["temperatures"] = plan
        if condition is not None:
            record["condition"] = condition
        if logps:
            record |= score(policy, bare.encode(record, record["completions"]), temperature)
        return record

    with options.open_stream(files, output, resume, on_error, rejects, shard, prepare=prepare, model=model) as stream:
        for lines in stream.windows(window):
            draws = {line.index: [decode.Draw(line.index, i, line.data, t, where=line.where)
                                  for i, t in enumerate(plan)] for line in lines}
            waiting = list(lines)
            for batch in decode.batches([d for row in draws.values() for d in row], batch_tokens, max_new_tokens):
                summary.count(tokens=decode.generate(policy, encoder, batch, how))
                while waiting and all(draw.reason for draw in draws[waiting[0].index]):
                    line = waiting.pop(0)
                    stream.write(line, finish(line, draws[line.index]))
        summary.count(completions=stream.written * len(plan), **encoder.cut)
        summary.close(stream)


def score(policy, example, temperature):
    """The completions' log-probabilities, as al-score computes them."""
    import torch

    with torch.inference_mode():
        logps = policy.logps(policy.pack([example]), temperature)[0].tolist()
    return {"logps": logps} | ({"logps_temperature": temperature} if temperature != 1 else {})


if __name__ == "__main__":
    main()
