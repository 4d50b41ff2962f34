"""Score completions with a reward model, a classifier, a program of your own, or a policy's log-probabilities.

in    {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."]}
out   {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."], "rewards": [1.3, -0.7]}
pipe  al-sample sft -n 4 prompts.jsonl | al-score rm | al-pref2rw --to pref > pairs.jsonl
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from math import isfinite
from operator import ne
from typing import TYPE_CHECKING, Any, Protocol

import click

from alignlib.cli import model_options, options, rules, shells
from alignlib.records import fields
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream
from alignlib.rewards import programs

if TYPE_CHECKING:
    from torch import Tensor

    from alignlib.models.example import Example
    from alignlib.models.packs import Pack
    from alignlib.models.policy import Model

Figures = dict[str, list[float]]  # one number a completion, by field


@options.command(("prompt", "completions"), ("rewards", "rewards_temperature", "logps", "logps_temperature",
                                             "ref_logps", "ref_logps_temperature", "perplexities"),
                 may=("finish_reasons", "completion_ids", "end_ids"))
@rules.goes_with("--temperature", "--logps")
@click.argument("model", shell_complete=shells.files)
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
@click.option("--end", type=click.Choice(["token", "none"]),
              help="Read a reward model at an end put after each completion, or at its last token.  [default: as "
                   "al-train-rm trained it; others at the last token of the whole conversation]")
@click.option("--timeout", cls=options.Beside, type=options.Finite(0, min_open=True), default=programs.TIMEOUT,
              help="Of cmd:PROGRAM: seconds without a number.")
@model_options.limit_options
@model_options.chat_options
@model_options.device_options
def main(model: str, files: tuple[str, ...], output: str | None, resume: bool, on_error: str, rejects: str | None,
         shard: tuple[int, int] | None, logps: bool, perplexity: bool, temperature: float, label: str | None, form: str,
         negate: bool, calibrated: bool, stop: tuple[str, ...], end: str | None, as_field: str | None, pack_tokens: int,
         timeout: float, dtype: str, device: str, **limits: Any) -> None:
    """Score each completion under MODEL: a folder or a name on the Hub, or by a program.

    Programs: py:FILE.py:FUNCTION, called with a record and its completions; cmd:PROGRAM, a JSON line a completion in
    and a number a line out; re:PATTERN, length, math; toy:NAME, the toy world's oracle (helpful, harmless, ...).

    Streams, a window of records at a time. A prompt is computed once for all its completions.
    """
    summary = options.Summary()
    name = as_field or ("logps" if logps or perplexity else "rewards")
    must_fit(model, name, as_field, logps, perplexity, bool(label or form != "logit"), negate, calibrated, stop, end)
    if "timeout" in options.given_options() and not model.startswith("cmd:"):
        raise click.UsageError("--timeout goes with cmd:PROGRAM")
    if calibrated:
        from alignlib.rewards.temperature import load

        temperature = load(model)
    program = programs.program_for(model, timeout) if programs.is_program(model) else None
    scorer: Scorer
    if program:
        scorer = Programmed(program, name)
    elif logps or perplexity:
        scorer = LogProbabilities(model, device, dtype, limits, pack_tokens, name if logps else None, temperature,
                                  perplexity)
    else:
        scorer = Rewards(model, device, dtype, limits, pack_tokens, name, label, form, temperature, end)
    from alignlib.decoding.draws import cut_at_stops

    def prepare(record: Record) -> tuple[Record, Any]:
        """The record, its completions cut where they stop, and what the scorer makes of it."""
        fields.require_completions(record)
        record = cut_at_stops(record, stop) if stop else record
        return record, scorer.prepare(record)

    def finish(line: Line, figures: Figures) -> Record:
        """The record with its figures. Raises FloatingPointError for those that JSON has no number for."""
        for field, values in figures.items():
            if not all(map(isfinite, values)):
                raise FloatingPointError(f"{line.where}: {model} gives {field} that are not finite")
            figures[field] = [-value for value in values] if negate else values
        record = {**(line.data[0] if stop else line.record), **figures}
        if name in figures:
            record.pop(f"{name}_temperature", None)
            record |= {f"{name}_temperature": temperature} if temperature != 1 else {}
        return record

    with options.open_stream(files, output, resume, on_error, rejects, shard, prepare=prepare,
                             model=programs.files_of(model) if program else model,
                             hold=isinstance(program, programs.Rule)) as stream:
        with program or nullcontext():
            for line, figures in scored(stream, scorer):
                stream.write(line, record := finish(line, figures))
                stopped = sum(map(ne, record["completions"], line.record["completions"])) if stop else 0
                summary.count(completions=len(record["completions"]), **{"stopped": stopped} if stop else {})
        summary.count(tokens=scorer.tokens, **scorer.cut)
        summary.close(stream)


def must_fit(model: str, name: str, as_field: str | None, logps: bool, perplexity: bool, of_class: bool, negate: bool,
             calibrated: bool, stop: tuple[str, ...], end: str | None) -> None:
    """Refuse options that would do nothing, or cannot be; `of_class`: one of a classifier's classes is asked for."""
    wants_policy = logps or perplexity
    if name in fields.FIELDS and name not in ("rewards", "logps", "ref_logps"):
        raise click.UsageError(f"--as-field {name}: that field holds something else")
    if as_field and perplexity and not logps:
        raise click.UsageError("--as-field goes with --logps or rewards; perplexities have their own field")
    if name in ("logps", "ref_logps") and not wants_policy:
        raise click.UsageError(f"--as-field {name} is for log-probabilities: give --logps")
    if wants_policy and (of_class or negate):
        raise click.UsageError("--label, --as and --negate go with a classifier, not with --logps or --perplexity")
    if calibrated and (wants_policy or of_class):
        raise click.UsageError("--calibrated goes with a reward model, not with --logps, --perplexity, --label or --as")
    if end and (wants_policy or programs.is_program(model)):
        raise click.UsageError("--end goes with a reward model")
    if stop and wants_policy:
        raise click.UsageError("--stop goes with rewards: log-probabilities are of all that was sampled")
    if not all(stop):
        raise click.UsageError("--stop: an empty text would stop everything")
    if programs.is_program(model) and (wants_policy or of_class or calibrated):
        what = "an oracle" if model.startswith("toy:") else "a program"
        raise click.UsageError(f"{model}: {what}, neither a policy nor a classifier")


class Scorer(Protocol):
    """What gives completions their figures.

    window  records that are scored together
    tokens  that were read so far
    cut     how many prompts and completions were too long
    """

    @property
    def window(self) -> int: ...

    @property
    def tokens(self) -> int: ...

    @property
    def cut(self) -> Mapping[str, int]: ...

    def prepare(self, record: Record) -> Any:
        """What `score` needs of a record. Raises ValueError."""

    def score(self, lines: Sequence[Line]) -> Iterable[Figures]:
        """The figures of each line, in order; its `data` is (record, what `prepare` gave)."""


def scored(stream: Stream, scorer: Scorer) -> Iterator[tuple[Line, Figures]]:
    """Every line with its figures. One that a program fails at is put aside where bad lines are; else it is raised."""
    for lines in stream.windows(scorer.window):
        try:
            yield from zip(lines, scorer.score(lines), strict=True)
        except programs.RewardFailure as failure:
            if not stream.skip:
                raise
            [line] = lines  # a program's window is one
            stream.reject(line, ValueError(failure.reason))


class Programmed:
    """Rewards by a program, record by record; it needs no model."""

    window, tokens = 1, 0
    cut: Mapping[str, int] = {}

    def __init__(self, program: programs.Program, field: str):
        self.program, self.field, self.prepare = program, field, program.prepare

    def score(self, lines: Sequence[Line]) -> Iterator[Figures]:
        for line in lines:
            [rewards] = self.program.score([(line.where, line.data[1])])
            yield {self.field: rewards}


class ModelScorer:
    """A model that reads packs, the prompt once for its completions; `measure` computes the figures, [E, K] each."""

    def __init__(self, model: "Model", measure: "Callable[[Pack], Mapping[str, Tensor]]", limits: dict[str, Any],
                 pack_tokens: int, end: str | None = None):
        from alignlib.models import load, scoring

        self.window = scoring.WINDOW
        self.packs = scoring.PackScorer(model, measure, pack_tokens)
        limits = {**limits, "keep": limits["keep_prompt"]}
        del limits["keep_prompt"]
        self.encoder = load.encoder_for(model, end=end, **limits)
        self.cut = self.encoder.cut

    @property
    def tokens(self) -> int:
        return self.packs.tokens

    def prepare(self, record: Record) -> "Example":
        return self.encoder.encode(record, record["completions"])

    def score(self, lines: Sequence[Line]) -> list[Figures]:
        return self.packs.score([line.data[1] for line in lines])


class Rewards(ModelScorer):
    """A reward model's score, divided by its temperature, or one class of a classifier."""

    logits: "Callable[[Pack], Tensor]"

    def __init__(self, path: str, device: str, dtype: str, limits: dict[str, Any], pack_tokens: int, field: str,
                 label: str | None, form: str, temperature: float, end: str | None):
        from alignlib.models import load
        from alignlib.models.token_rewards import TokenReward

        model = load.load_reward(path, device, dtype)
        super().__init__(model, self.measure, limits, pack_tokens, end)
        names: dict[int, str] = {0: "reward"}
        if isinstance(model, TokenReward):
            if label is not None or form != "logit":
                raise click.UsageError(f"{path}: a {model.kind} reward model: --label and --as go with a classifier")
            self.logits = lambda batch: model.scores(batch).view(-1, 1)
        else:
            names, self.logits = model.core.config.id2label, model.logits
        if len(names) > 1 and label is None:
            raise click.UsageError(f"{path}: a classifier of {', '.join(names.values())}: name one with --label")
        numbers = {**{str(number): number for number in names}, **{text: number for number, text in names.items()}}
        if label is not None and label not in numbers:
            raise click.UsageError(f"--label {label}: {path} has {', '.join(names.values())}")
        self.field, self.form, self.label = field, form, 0 if label is None else numbers[label]
        self.temperature = temperature

    def measure(self, batch: "Pack") -> "dict[str, Tensor]":
        logits = self.logits(batch)  # [E * K, labels]
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

    def __init__(self, path: str, device: str, dtype: str, limits: dict[str, Any], pack_tokens: int, field: str | None,
                 temperature: float, perplexity: bool):
        from alignlib.models import load

        self.model = load.load_policy(path, device, dtype)
        super().__init__(self.model, self.measure, limits, pack_tokens)
        self.field, self.temperature, self.perplexity = field, temperature, perplexity

    def measure(self, batch: "Pack") -> "dict[str, Tensor]":
        figures: dict[str, Tensor] = {}
        if self.field:
            figures[self.field] = self.model.logps(batch, self.temperature)
        if self.perplexity:  # at temperature 1; of no tokens: 1
            logps = figures[self.field] if self.field and self.temperature == 1 else self.model.logps(batch)
            figures["perplexities"] = (-logps / batch.counts().clamp_min(1)).exp()
        return figures


if __name__ == "__main__":
    main()
