"""Score completions with a reward model, a classifier, the toy world's oracle, or a policy's log-probabilities.

in    {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."]}
out   {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."], "rewards": [1.3, -0.7]}
pipe  al-sample sft -n 4 prompts.jsonl | al-score rm | al-pref2rw --to pref > pairs.jsonl
"""

import math
from operator import ne

import click

from alignlib.cli import model_options, options
from alignlib.records import fields


@options.command(("prompt", "completions"), ("rewards", "rewards_temperature", "logps", "logps_temperature",
                                             "ref_logps", "ref_logps_temperature", "perplexities"),
                 may=("finish_reasons", "completion_ids"))
@click.argument("model")
@options.filter_options
@click.option("--logps", is_flag=True, help="MODEL is a policy: write sum log-probabilities.")
@click.option("--perplexity", is_flag=True, help="MODEL is a policy: write perplexities, with --logps or alone.")
@click.option("--temperature", type=options.Finite(min=0, min_open=True), default=1.0,
              help="Of --logps: what logits are divided by.")
@click.option("--label", help="Of a classifier: the class whose score is the reward, by name or number.")
@click.option("--as", "form", type=click.Choice(["logit", "prob", "logodds"]), default="logit",
              help="The class's score: its logit, its probability, or log(p / (1 - p)).")
@click.option("--negate", is_flag=True, help="Turn the rewards' sign.")
@click.option("--calibrated", is_flag=True, help="Divide a reward model's scores by its temperature, which al-eval rm "
              "--fit-temperature has put into its folder.")
@click.option("--stop", multiple=True, help="A text that ends a completion: what is from there on is cut off, in the "
              "record too; may be repeated.")
@click.option("--as-field", help="The field to write.  [default: rewards, or logps]")
@click.option("--pack-tokens", type=click.IntRange(min=1), default=16384, help="Tokens on the device at once.")
@model_options.limit_options
@model_options.device_options
def main(model, files, output, resume, on_error, rejects, shard, logps, perplexity, temperature, label, form, negate,
         calibrated, stop, as_field, pack_tokens, dtype, device, **limits):
    """Score each completion under MODEL: a folder, a name on the Hub, or toy:NAME (helpful, harmless, ...).

    Streams, a window of records at a time. A prompt is computed once for all its completions.
    """
    summary = options.Summary()
    wants_policy = logps or perplexity
    name = as_field or ("logps" if wants_policy else "rewards")
    if name in fields.FIELDS and name not in ("rewards", "logps", "ref_logps"):
        raise click.UsageError(f"--as-field {name}: that field holds something else")
    if as_field and perplexity and not logps:
        raise click.UsageError("--as-field goes with --logps or rewards; perplexities have their own field")
    if name in ("logps", "ref_logps") and not wants_policy:
        raise click.UsageError(f"--as-field {name} is for log-probabilities: give --logps")
    if temperature != 1 and not logps:
        raise click.UsageError("--temperature goes with --logps")
    if wants_policy and (label or negate or form != "logit"):
        raise click.UsageError("--label, --as and --negate go with a classifier, not with --logps or --perplexity")
    if calibrated and (wants_policy or label or form != "logit"):
        raise click.UsageError("--calibrated goes with a reward model, not with --logps, --perplexity, --label or --as")
    if stop and wants_policy:
        raise click.UsageError("--stop goes with rewards: log-probabilities are of all that was sampled")
    if not all(stop):
        raise click.UsageError("--stop: an empty text would stop everything")
    if model.startswith("toy:"):
        if wants_policy or label or form != "logit" or calibrated:
            raise click.UsageError(f"{model}: an oracle, neither a policy nor a classifier")
        scorer = Oracle(model.removeprefix("toy:"), name)
    elif wants_policy:
        scorer = LogProbabilities(model, device, dtype, limits, pack_tokens, name if logps else None, temperature,
                                  perplexity)
    else:
        temperature = temperature_of(model) if calibrated else 1
        scorer = Rewards(model, device, dtype, limits, pack_tokens, name, label, form, temperature)
    from alignlib.decoding.draws import cut_at_stops

    def prepare(record):
        """The record, its completions cut where they stop, and what the scorer makes of it."""
        fields.require_completions(record)
        record = cut_at_stops(record, stop) if stop else record
        return record, scorer.prepare(record)

    with options.open_stream(files, output, resume, on_error, rejects, shard, prepare=prepare, model=model) as stream:
        for lines in stream.windows(scorer.window):
            for line, figures in zip(lines, scorer.score(lines), strict=True):
                for field, values in figures.items():
                    if not all(map(math.isfinite, values)):
                        raise FloatingPointError(f"{line.where}: {model} gives {field} that are not finite")
                    figures[field] = [-value for value in values] if negate else values
                record = {**line.data[0], **figures}
                if name in figures:
                    record.pop(f"{name}_temperature", None)
                    record |= {f"{name}_temperature": temperature} if temperature != 1 else {}
                stream.write(line, record)
                stopped = sum(map(ne, record["completions"], line.record["completions"])) if stop else 0
                summary.count(completions=len(record["completions"]), **{"stopped": stopped} if stop else {})
        summary.count(tokens=scorer.tokens, **scorer.cut)
        summary.close(stream)


def temperature_of(model):
    from alignlib.stats import temperature

    return temperature.load(model)


class Oracle:
    """The toy world's judge of any text; it needs no model."""

    window, tokens, cut = 1, 0, {}

    def __init__(self, name, field):
        from alignlib.toy import world

        if name not in world.ORACLES:
            raise click.UsageError(f"toy:{name}: no such oracle; there are {', '.join(world.ORACLES)}")
        self.name, self.field, self.ask = name, field, world.score

    def prepare(self, record):
        if "prompt" not in record:
            raise ValueError("prompt: missing (an oracle reads no messages)")
        fields.FIELDS["prompt"].check(record["prompt"], "prompt")

    def score(self, lines):
        for line in lines:
            prompt, completions = line.data[0]["prompt"], line.data[0]["completions"]
            yield {self.field: [self.ask(self.name, prompt, text) for text in completions]}


class ModelScorer:
    """A model asked in packs, the prompt once for its completions; `figures` are what it is asked for."""

    def __init__(self, model, limits, pack_tokens):
        from alignlib.models import load, scoring

        self.model, self.window = model, scoring.WINDOW
        self.packs = scoring.PackScorer(model, self.figures, pack_tokens)
        limits = {**limits, "keep": limits["keep_prompt"]}
        del limits["keep_prompt"]
        self.encoder = load.encoder_for(model, **limits)
        self.cut = self.encoder.cut

    @property
    def tokens(self):
        return self.packs.tokens

    def prepare(self, record):
        return self.encoder.encode(record, record["completions"])

    def score(self, lines):
        """One {field: numbers} a line, in order."""
        return self.packs.score([line.data[1] for line in lines])


class Rewards(ModelScorer):
    """A reward model's score, divided by its temperature, or one class of a classifier."""

    def __init__(self, path, device, dtype, limits, pack_tokens, field, label, form, temperature):
        from alignlib.models import load

        super().__init__(load.load_reward(path, device, dtype), limits, pack_tokens)
        names = self.model.core.config.id2label
        if len(names) > 1 and label is None:
            raise click.UsageError(f"{path}: a classifier of {', '.join(names.values())}: name one with --label")
        known = {**{str(number): number for number in names}, **{text: number for number, text in names.items()}}
        if label is not None and label not in known:
            raise click.UsageError(f"--label {label}: {path} has {', '.join(names.values())}")
        self.field, self.form, self.label = field, form, known.get(label, 0)
        self.temperature = temperature

    def figures(self, batch):
        logits = self.model.logits(batch)  # [E * K, labels]
        if self.form == "logit":
            values = logits[:, self.label] / self.temperature
        elif logits.shape[1] == 1:  # a lone logit is a log-odds
            values = logits[:, 0] if self.form == "logodds" else logits[:, 0].sigmoid()
        elif self.form == "prob":
            values = logits.softmax(-1)[:, self.label]
        else:
            others = [i for i in range(logits.shape[1]) if i != self.label]
            values = logits[:, self.label] - logits[:, others].logsumexp(-1)
        return {self.field: values.view(batch.shape)}


class LogProbabilities(ModelScorer):
    """Sum log-probabilities and perplexities under a policy."""

    def __init__(self, path, device, dtype, limits, pack_tokens, field, temperature, perplexity):
        from alignlib.models import load

        super().__init__(load.load_policy(path, device, dtype), limits, pack_tokens)
        self.field, self.temperature, self.perplexity = field, temperature, perplexity

    def figures(self, batch):
        found = {}
        if self.field:
            found[self.field] = self.model.logps(batch, self.temperature)
        if self.perplexity:  # at temperature 1; of no tokens: 1
            logps = found[self.field] if self.field and self.temperature == 1 else self.model.logps(batch)
            found["perplexities"] = (-logps / batch.counts().clamp_min(1)).exp()
        return found


if __name__ == "__main__":
    main()
