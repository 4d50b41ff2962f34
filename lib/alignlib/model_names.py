"""What the name of a model stands for: a folder, a name on the Hub, a .gguf file, or weights and what they began as.

    DIR, OWNER/NAME   configuration, tokenizer and weights, as transformers saves them
    DIR/X.gguf        all of them in one file; OWNER/NAME/X.gguf of a repository on the Hub
    DIR/X.bin         weights (.bin, .pt, .pth, .safetensors) beside a config.json and a tokenizer
    WEIGHTS@BASE      weights alone, a file or a folder or a name on the Hub, and the model whose configuration and
                      tokenizer they go with: policy.pt@gpt2-large
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = (".bin", ".pt", ".pth", ".safetensors")  # what files of weights end with


@dataclass(frozen=True)
class Parts:
    """Where the parts of a model are.

    folder   of the configuration and the tokenizer: a folder or a name on the Hub
    weights  a file, a folder or a name on the Hub with its weights, where they are not those of `folder`
    gguf     the file that holds all three; a name within `folder` where that is on the Hub
    """

    folder: str
    weights: str | None = None
    gguf: str | None = None


def parts(name: str) -> Parts:
    """Where the parts of the model of this name should be; whether they are there is not asked."""
    place = Path(name)
    if name.endswith(".gguf") and not place.is_dir():
        folder, file = os.path.split(name)
        here = place.exists() or Path(folder or ".").is_dir() or folder.count("/") != 1
        # Whole: transformers looks for a file of this name where the command runs, before it looks in the folder.
        return Parts(folder or ".", gguf=os.path.abspath(name) if here else file)
    if place.is_dir():
        return Parts(name)
    if place.is_file():
        return Parts(os.path.dirname(name) or ".", name) if place.suffix in WEIGHTS else Parts(name)
    weights, at, base = split(name)
    return Parts(base, weights) if at else Parts(name)


def split(name: str) -> tuple[str, str, str]:
    """WEIGHTS@BASE apart, the mark between them empty where there is none: at the first @ behind what is there."""
    places = [i for i, letter in enumerate(name) if letter == "@" and 0 < i < len(name) - 1]
    at = next((i for i in places if Path(name[:i]).exists()), places[0] if places else len(name))
    return name[:at], name[at:at + 1], name[at + 1:]


def is_here(name: str) -> bool:
    """Whether it is a model on this machine, by what is there, rather than a name on the Hub or on a server."""
    found = parts(name)
    apart = found.gguf or found.weights
    return Path(apart).exists() if apart else bool(name) and Path(name).is_dir()


def is_path(name: str) -> bool:
    """Whether it can be nothing but a place on this machine: no name on the Hub or on a server begins so."""
    return name.startswith(("/", "./", "../", "~"))


def what_would_do(folder: str) -> str:
    """What a user may have meant by a folder without config.json: "; DIR/X.gguf would do"."""
    here = Path(folder)
    files = sorted(file.name for file in here.iterdir())

    def options() -> Iterator[str]:
        yield from (f"{here / name} would do" for name in files if name.endswith(".gguf"))
        yield from (f"{here / file.parent.name} has one" for file in sorted(here.glob("*/config.json")))
        yield from (f"for weights alone name their base: {here / name}@BASE" for name in files
                    if name.endswith(WEIGHTS) and "adapter_config.json" not in files)

    return "; " + next(options(), "one that a trainer or save_pretrained wrote would do, or a name on the Hub")
