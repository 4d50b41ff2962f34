"""Tiny models and records that the commands' tests share, and a quick way to run many commands.

`run` is `process.call` without a script between: it can tell the command's process what to do.
"""

import atexit
import functools
import itertools
import json
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from alignlib.toy import world
from helpers import forks
from helpers.process import command, environment

CONTEXT = 160  # tokens that the models were made for
CLASSES = ("bad", "fair", "good")
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[bot]"


def lines(*records: dict) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def read(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def pairs(count: int, **more) -> list[dict]:
    """Preferences of the toy dialogues."""
    return [{**record, **more} for record in world.records("dialogue", limit=count)]


def prompts(count: int) -> list[dict]:
    return [{"id": record["id"], "prompt": record["prompt"]} for record in pairs(count)]


def rewarded(count: int, k: int = 4) -> list[dict]:
    """Toy prompts with k answers each, and the oracle's rewards, no two of a prompt alike."""
    answers = itertools.cycle(dict.fromkeys(pair["chosen"] for pair in pairs(40)))
    records = []
    for record in prompts(count):
        texts: dict[float, str] = {}
        while len(texts) < k:
            answer = next(answers)
            texts.setdefault(world.score("overall", record["prompt"], answer), answer)
        records.append({**record, "completions": list(texts.values()), "rewards": list(texts)})
    return records


def one_line(text: str) -> str:
    """What stderr says, which must be one line."""
    assert text.count("\n") == 1 and text.endswith("\n"), text
    return text.strip()


class Folders:
    """Models: `policy` and `other` (another of the same tokenizer), `reward` (one label), `classifier` (CLASSES)."""

    def __init__(self, root: Path):
        import torch
        import transformers

        from al_data.new_model import texts, train_tokenizer

        transformers.utils.logging.disable_progress_bar()
        self.root, self.count, self.chats = root, itertools.count(), {}
        self.policy, self.other, self.reward, self.classifier = (
            str(root / name) for name in ("policy", "other", "reward", "classifier"))
        corpus = (text for pair in world.records("dialogue", limit=100) for text in texts(pair))
        self.tokenizer = train_tokenizer(corpus, 500, CONTEXT)
        ids = {f"{name}_token_id": getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        # Weights larger than usual: a distribution with a shape, and completions that end.
        shape = {"vocab_size": len(self.tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64,
                 "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
                 "initializer_range": 0.15, "tie_word_embeddings": True, **ids}
        names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
        for seed, (path, architecture, more) in enumerate((
            (self.policy, transformers.LlamaForCausalLM, {}),
            (self.other, transformers.LlamaForCausalLM, {}),
            (self.reward, transformers.LlamaForSequenceClassification, {"num_labels": 1, "reads_eos": False}),
            (self.classifier, transformers.LlamaForSequenceClassification, {**names, "reads_eos": False}),
        )):
            torch.manual_seed(seed)
            architecture(transformers.LlamaConfig(**shape, **more)).save_pretrained(path)
            self.tokenizer.save_pretrained(path)

    def new(self, name: str = "new") -> Path:
        """A path that is not there yet."""
        return self.root / f"{name}-{next(self.count)}"

    def without(self, path: str, *names: str) -> Path:
        """A copy of a model folder that lacks some files."""
        copy = self.new()
        shutil.copytree(path, copy, ignore=lambda *_: names)
        return copy

    def templated(self, path: str) -> str:
        """The model folder with a chat template."""
        if path not in self.chats:
            self.chats[path] = self.without(path)
            (self.chats[path] / "chat_template.jinja").write_text(TEMPLATE)
        return str(self.chats[path])

    def saying(self, path: str, **says) -> Path:
        """A copy of a model folder whose configuration says this; None: says nothing of it."""
        copy = self.without(path)
        config = {**json.loads((copy / "config.json").read_text()), **says}
        kept = {name: value for name, value in config.items() if name not in says or value is not None}
        (copy / "config.json").write_text(json.dumps(kept))
        return copy

    def changed(self, path: str, change) -> Path:
        """A copy of a model folder whose weights `change` has changed, in place, in their dict."""
        from safetensors.torch import load_file, save_file

        copy = self.without(path)
        weights = load_file(copy / "model.safetensors")
        change(weights)
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
        return copy

    def broken(self, path: str) -> Path:
        """A copy of a model folder with a NaN in its weights: everything it computes is NaN."""
        return self.changed(path, lambda weights: weights["model.norm.weight"].fill_(float("nan")))

    def wrong(self, path: str) -> dict[str, tuple[str, str]]:
        """Folders that are not what they must be: name -> (path, a word of the message)."""
        empty = self.new("empty")
        empty.mkdir()
        return {
            "nothing there": (str(self.new("missing")), "no such folder"),
            "an empty folder": (str(empty), "config.json"),
            "no tokenizer": (str(self.without(path, "tokenizer.json", "tokenizer_config.json")), "no tokenizer"),
            "no weights": (str(self.without(path, "model.safetensors")), "model.safetensors"),
            "weights missing": (str(self.changed(path, lambda w: w.pop("model.layers.1.mlp.up_proj.weight"))),
                                "lacks 1 weights"),
        }


@functools.cache
def folders() -> Folders:
    root = Path(tempfile.mkdtemp(prefix="folders-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return Folders(root)


# -- running commands ----------------------------------------------------------------------------------------

def run(name: str, *args: object, stdin: bytes | str = b"", venv: Path | None = None, home: Path | None = None,
        **told: object) -> subprocess.CompletedProcess:
    """A command's .returncode, .stdout, .stderr (text), from `home`; `told`: what forks.SERVER is to do to it."""
    environ = {**environment(), "TESTS_TELL": json.dumps(told)}
    with (tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors):
        given.write(stdin if isinstance(stdin, bytes) else stdin.encode())
        given.seek(0)
        server, files = (venv or forks.folder()) / "socket", [given.fileno(), out.fileno(), errors.fileno()]
        code = forks.ask(str(server), name, [*map(str, args)], str(home or Path.cwd()), environ, files)
        texts = [Path(f"/proc/self/fd/{file.fileno()}").read_text() for file in (out, errors)]
    return subprocess.CompletedProcess([*map(str, args)], code, *texts)


def stopped(name: str, *args: object, stdin: bytes, sign: int = signal.SIGTERM) -> tuple[int, str, str]:
    """Send a trainer of at least 60 steps a signal in the middle of them: its exit code, what it logged, its stderr.

    Its standard output is so narrow that it has to wait, after some twenty lines, until they are read.
    """
    process = subprocess.Popen(command(name, *args), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, pipesize=4096)
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None
    first = process.stdout.readline()
    process.send_signal(sign)
    out, err = process.communicate()
    return process.returncode, (first + out).decode(), err.decode()


# -- what training leaves ------------------------------------------------------------------------------------


def weights(folder: str | Path) -> dict[str, bytes]:
    """The model's tensors, or its adapter's, bit for bit."""
    from safetensors.numpy import load_file

    [file] = Path(folder).glob("*model.safetensors")
    return {name: array.tobytes() for name, array in load_file(file).items()}


def apart(one: str | Path, other: str | Path, but: float = 0) -> float:
    """The largest difference between two folders' weights, which have the same names; `but` for that share of them.

    Where a gradient is next to nothing, AdamW divides rounding by its own size: the step of such a weight is anything.
    """
    import torch
    from safetensors.torch import load_file

    ours, theirs = (load_file(Path(folder) / "model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    differences = torch.cat([(ours[name].float() - theirs[name].float()).abs().flatten() for name in ours])
    return differences.sort().values[-1 - int(but * len(differences))].item()


def log(folder: str | Path) -> list[dict]:
    """The log of a run, less the clock's figures."""
    entries = read((Path(folder) / "log.jsonl").read_text())
    return [{name: value for name, value in entry.items() if name != "tokens_per_second" and "seconds_" not in name}
            for entry in entries]
