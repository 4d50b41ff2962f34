"""A folder's tokenizer: its own, a .gguf file's, that of an adapter's base."""

from pathlib import Path

import click
import orjson
import transformers
from transformers import PreTrainedTokenizerBase

from alignlib.model_names import parts
from alignlib.models import adapters, faults, sources
from alignlib.models.checkpoint import first_line

TEMPLATE = "chat_template.jinja"


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer; an adapter may leave it, or its template alone, to its base. Raises UsageError."""
    if adapter := adapters.find(path):
        own = (adapter.folder / "tokenizer_config.json").is_file()
        words = read_tokenizer(str(adapter.folder) if own else adapter.base)
        if not own and (template := faults.text(adapter.folder / TEMPLATE)):
            words.chat_template = template
        elif own and words.chat_template is None:
            words.chat_template = read_tokenizer(adapter.base).chat_template
        return words
    return read_tokenizer(path)


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The one of the model itself. Raises UsageError."""
    found = parts(path)
    file = {"gguf_file": found.gguf} if found.gguf else {}

    def tokenizer_in(folder: str) -> PreTrainedTokenizerBase:
        words = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **file)
        must_know_its_tokens(words, Path(found.folder, faults.OF_A_TOKENIZER[1]))
        words("a")  # some of what is wrong shows only then
        return words

    try:
        tokenizer = tokenizer_in(found.folder)
    except click.UsageError:
        raise
    except BaseException as error:  # tokenizers has no kind of its own
        if not faults.is_library_error(error):
            raise
        faults.text(Path(found.folder, TEMPLATE))
        if not found.gguf and any(Path(found.folder, name).is_file() for name in faults.OF_A_TOKENIZER[:2]):
            faults.refuse(found.folder, faults.OF_A_TOKENIZER, tokenizer_in, error)
        raise click.UsageError(f"{path}: no tokenizer ({first_line(error)})") from error
    if found.gguf:
        sources.drop_strangers(tokenizer, sources.gguf_config(path).vocab_size)
    if not tokenizer.vocab_size - len(tokenizer.all_special_ids) > 0:  # of a class that is content without files
        raise click.UsageError(f"{path}: no tokenizer (its vocabulary is empty)")
    longest = tokenizer.model_max_length
    if not isinstance(longest, int | float) or not longest > 0:
        raise click.UsageError(f"{Path(found.folder, faults.OF_A_TOKENIZER[0])}: model_max_length: expected a number "
                               f"above 0, got {faults.shown(longest)}")
    tokenizer.name_or_path = path  # which a .gguf file's folder is not
    return tokenizer


def must_know_its_tokens(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Raises UsageError where a file puts tokens around a text that it does not declare: tokenizers would panic."""
    last = tokenizer.is_fast and tokenizer.backend_tokenizer.post_processor
    steps = [orjson.loads(last.__getstate__())] if last else []
    steps += steps[0].get("processors", []) if steps else []
    for step in steps:
        pieces = [*step.get("single", []), *step.get("pair", [])] if step["type"] == "TemplateProcessing" else []
        used = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
        if unknown := next((token for token in used if token not in step["special_tokens"]), None):
            raise click.UsageError(f"{file}: post_processor: {faults.shown(unknown)} is none of its special_tokens")
