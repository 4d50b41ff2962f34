"""What the commands of a checkout put out, recorded, so that a change of the code can be held against it.

    python tests/outputs.py record CHECKOUT FOLDER     # runs every command on small seeded data; FOLDER/hashes.json
    python tests/outputs.py compare FOLDER FOLDER      # names what differs; exit 1 where anything does that may not

FOLDER has a folder a command: stdout; stderr behind the exit code; each file that it wrote, weights as hashes.
Left out: times, versions, hashes of models, files for --resume. Rounding differs from machine to machine.
"""

import gzip
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

COMMANDS = ("al-data", "al-sft", "al-train-rm", "al-sample", "al-score", "al-label-ai", "al-pref2rw", "al-train-exo",
            "al-train-alt", "al-train-ppo", "al-args", "al-eval")
TOLERANCE = 1e-5
CPU = "--dtype fp32 --device cpu"
SHORT = {"cpu": CPU, "train": f"{CPU} --steps 3 --batch-size 8 --lr 1e-3",
         "both": "--lm-device cpu --rm-device cpu --lm-dtype fp32 --rm-dtype fp32 -m 8"}

# = what commands begin with, @ for the name; NAME: the rest. NAME.out is its standard output, for those after it.
# ~: figures may differ by TOLERANCE. --json: once more with --table.
TABLE = """
= al-data toy
toy: --limit 48 | test: --split test --limit 12 | prompts: --split test --only prompts --limit 6
posts: --task summary --only sft --limit 12 -o posts.jsonl | labels: --task review --labels --limit 30
reviews: --task review --only pref --shuffle --seed 3 --limit 12 | judge: --only judge --limit 12
helpful: --by helpful --limit 16 | harmless: --by harmless --best-of 4 --seed 1 --limit 16
= al-data
imdb-labels: imdb --labels --from imdb.csv | alpaca-pref: alpaca-eval --only pref --from annotations.json
chats: chat chats.json | chat-test: chat chats.json --only prompts --split test
sharegpt-rest: sharegpt --skip-fraction 0.5 --split train --shuffle --from chats.json
base: new-model base toy.out --size 1m --vocab-size 400 --context 1024
= al-score
four: toy:overall four.jsonl | toy-shard: toy:harmless four.jsonl --shard 2/3 --as-field harm --negate
= al-pref2rw
rw: toy.out | domains: helpful.out harmless.out -o domains.jsonl | single: toy.out --to chosen --shard 1/4
to-pref: four.out --to pref --ties skip | to-sft: four.out --to sft
domains-again: helpful.out harmless.out -o domains.jsonl --resume
= al-sft base toy.out {train} -o @
sft: --steps 80 --epochs 20 --lr 4e-3 | sequence: --loss sequence --eval test.out --eval-every 2 --save-every 2
= al-train-rm sft {train} -o @
rm: toy.out --eval test.out --eval-every 3 --steps 9 --epochs 2
rm-rewards: four.out --margin 0.5 --rm-eos --max-completion 16
more: helpful.out harmless.out --more --normalize none --resample 12 --eval domains.jsonl
classifier: labels.out --loss classify --optimizer rmsprop | mean: toy.out --pool mean --lm-coef 0.1 --soft 1
= al-score sft {cpu}
cold: rw.out --logps --temperature 0.7 --as-field ref_logps
= al-train-exo sft {train} -o @
exo: four.out --eval four.out --temperature 0.9 | dpo-rw: four.out --loss dpo-rw --lora 2 --num-contrastive 2
exo-pref: rw.out --loss exo-pref --ref base --smoothing 0.1 | ipo: rw.out --loss ipo --reference-free
dpo: cold.out --loss dpo-pref --ref ref_logps --temperature 0.7 --importance | plan: --plan --launch 2
robust: rw.out --loss robust --smoothing 0.1 --sft-reg 0.01 | bad-rewards: four.jsonl
= al-train-exo sft {train} -o exo --resume four.out
exo-again: --eval four.out --temperature 0.9 | bad-resume: --eval four.out
= al-label-ai --judge overall --base-url {url}
pair: judge.out | one-order: judge.out --one-order --seed 3 --structured --ties drop
ties: judge.out --ties random --seed 1 | rate: four.jsonl --mode rate --question helpful
together: judge.out --mode rate --together -o rated.jsonl | against: single.out --against to-sft.out
feedback-lmc: four.jsonl --mode lmc | feedback-steerlm: four.jsonl --mode steerlm --structured
feedback-lmu: four.jsonl --mode lmu --rubric rubric.txt
price: judge.out --dry-run --price-in 1 --price-out 4 --question summary
= al-label-ai judge.out {cpu}
judge-local: --judge sft --one-order | judge-marks: --judge sft --mode rate | judge-rm: --judge-rm rm
= al-train-alt sft {train} -o @
alt: four.out --quantiles 2 --tags Good. --tags Bad. --kl-target 0.1 --train-layers 0.5
emit: four.out --emit --quantiles 2 --tags Good. --tags Bad. --per-quantile 1 --pool alt/pool.jsonl --drop 0.5
quark: four.out --mode quark --quantiles 4 --scope pool --eval four.out
lmc: feedback-lmc.out --mode lmc --per-prompt 3 | lmu: feedback-lmu.out --mode lmu --ref-sees condition
steerlm: feedback-steerlm.out --mode steerlm --kl-coef 0.1 --ref base
= al-train-ppo sft prompts.out {train} -o @ -n 4 -m 12
ppo: --reward rm --whiten --log-samples drawn-ppo.jsonl | grpo: --reward toy:helpful --reward -0.1:length --method grpo
rloo: --reward re:the --method rloo --ref base --kl-target 2 --passes 2 --missing-end 1 --eval test.out --eval-every 2
ptx: --reward rm --critic sft --ptx toy.out --lora 2 --batch-size 4 --prompts 2 | bad-n: --reward rm --batch-size 6
= al-sample {cpu} -m 12
sample: sft prompts.out -n 2 --ids --window 4 | contrastive: sft prompts.out --contrastive 0.6 --top-k 8
messages: sft talks.jsonl -t 0 -t 0.7 -t 1 --top-p 0.9 --top-k 50 --seed 5 --time
greedy: sft prompts.out --greedy --stop " to" --stop , --condition "Well. " --max-prompt 12
best: quark prompts.out --condition best | exemplars: lmu prompts.out --condition exemplars -o drawn.jsonl
~logps: sft prompts.out -n 2 -t 0.8 --logps | bad-model: nowhere prompts.out
= al-sample m --backend openai --base-url {echo}
openai: prompts.out talks.jsonl -n 3 -m 9 --stop END -t 0 -t 1 --concurrency 4 | bad-talk: torn.jsonl
= al-args sft rm prompts.out {both}
args-greedy: --weight 1.5 --topk 5 --margin 0.5 --ids --time | grid: --grid grid.jsonl --max-prompt 16
stochastic: --method stochastic -t 0.8 -n 2 --score-end text | best-of-n: --method best-of-n --best-of 3 --stop e
segment: --method segment --best-of 2 --segment 4
= al-score {cpu}
judged: rm domains.jsonl | learned: mean four.out --as-field learned
toxic: classifier four.jsonl --label negative --as prob --as-field toxicities
stop: classifier four.jsonl --label 1 --as logodds --negate --stop . --max-length 40 --on-long skip
policy: sft sample.out --logps --perplexity | reference: base policy.out --logps --as-field ref_logps
= al-eval
~eval-rm: rm judged.out --plot rm.png --json | ~fit: rm judged.out --fit-temperature rm
~eval-rm-field: rm learned.out --field learned --strategy quantile --bins 5 --json
reward: reward four.out --against rw.out --json --set method=a | kl: kl reference.out --json --set method=a --seed 1
text: text policy.out --resamples 100 --json | coherence: text four.jsonl --coherence sft --pool cls -o vectors.json
~winrate: winrate pair.out other=one-order.out --plot winrate.png --json
~winrate-rewards: winrate four.out --against rw.out --alpaca-eval outputs.json --set method=a
~winrate-gamed: winrate set-annotations.json.out --gamed gamed.csv --json
~winrate-judge: winrate single.out --against to-sft.out --judge "overall --base-url {url}"
conditions: conditions emit.out --order alt --plot conditions.png --json | toxicity: toxicity toxic.out --json
frontier: frontier results.jsonl --plot frontier.png --json | frontier-share: frontier results.jsonl --cost share
curve: curve one=sft/log.jsonl two=sequence/log.jsonl --smooth 2 --plot curve.png --json
curve-fields: curve more/log.jsonl --field "lambda_*" --json | table: table --markdown reward.out kl.out b=text.out
~across: table rm=eval-rm.out --across domain --columns accuracy,ECE --json
= al-score
~calibrated: rm domains.jsonl --calibrated {cpu} | bad-field: toy:overall nothing.jsonl
= al-pref2rw broken.jsonl
bad-line: | bad-line-skipped: --on-error skip --rejects rejects.jsonl | bad-option: --qqq
"""

SIDES = [{name: f"\n\nHuman: {i}?\n\nAssistant: {text}" for name, text in (("chosen", "Yes."), ("rejected", "No."))}
         for i in range(6)]
TALKS = [{"messages": [{"role": role, "content": text} for role in ("system", "user")]} for text in ("Hi", "Why?")]
RANKED = (("Good.", 8.5), ("Bad.", 1.5), ("So so.", 6))
# Public sets in their published form: what al-data is told, a file, what is in it.
SETS: tuple[tuple[str, str, object], ...] = (
    ("hh", "helpful.jsonl", SIDES), ("hh --domain mine", "test.jsonl.gz", [*SIDES, {**SIDES[0], "chosen": ""}]),
    ("tldr", "tldr.jsonl", [{"subreddit": "a", "title": "b", "post": "c d", "summary": "e"}]),
    ("tldr-pref", "comparisons.jsonl", [{"info": {"subreddit": "a", "title": "b", "post": "c"}, "choice": 1,
                                         "summaries": [{"text": "x"}, {"text": "y"}]}]),
    ("imdb --prompt-words 3", "imdb.csv", 'text,label\n"One two, three <br /> four.",1\nfive six seven eight,0\nno,1'),
    ("sharegpt --turns 2 --fraction 0.5", "chats.json", [{"id": f"c{i}", "conversations": [
        {"from": "human", "value": f"{i}?"}, {"from": "gpt", "value": "Yes."}] * 2} for i in range(8)]),
    ("sharegpt --teacher gpt4", "gpt4.json", {"Human 0": ["A pear."], "Human 1": ["A plum.", "A fig."]}),
    ("ultrachat --max-words 4", "ultrachat.jsonl", [{"id": "1", "data": ["a b", "yes"]}, {"data": ["a b c d", "no"]}]),
    ("alpaca-eval", "annotations.json", [{"instruction": f"{i}?", "output_1": "r" * i, "output_2": "m" * (i * 5 % 9),
                                          "preference": 1 + i % 11 / 10} for i in range(14)]),
    ("ultrafeedback --all-answers", "ultrafeedback.jsonl", [{"instruction": "Why?", "completions": [
        {"response": text, "overall_score": score} for text, score in RANKED]}]),
    ("shp --min-ratio 1.5", "shp.jsonl", [{"post_id": f"p{b}", "history": "Why?", "human_ref_A": "Bad.", "labels": 0,
                                           "human_ref_B": "Good.", "score_A": 4, "score_B": b} for b in (5, 6, 9)]),
    ("stackexchange", "stackexchange.jsonl", [{"qid": 1, "question": "<p>Why <code>ls</code>?</p>", "answers": [
        {"text": f"<p>{text} &amp; so</p>", "pm_score": score} for text, score in RANKED]}]),
    ("webgpt --only judge --domain web", "webgpt.jsonl", [
        {"question": {"full_text": f"{i}?"}, "score_0": -i, "score_1": i, "answer_0": "a", "answer_1": "b"}
        for i in range(8)]),
    ("oasst1 --lang en --all-answers", "oasst1.jsonl", [
        {"message_id": name, "parent_id": name[:-1] or None, "role": "assistant" if name[1:] else "prompter",
         "text": name, "lang": "en", "rank": int(name[1:] or 0), "deleted": False} for name in ("a", "a1", "a0")]),
    ("hh --chat", "harmless.jsonl", SIDES),
    ("rtp", "rtp.jsonl", [{"prompt": {"text": "A dog"}, "continuation": {"text": " barked.", "toxicity": 0.25}}]),
    ("writing-prompts", "test.wp_source", "[ WP ] You wake up .\n[wp] A door opens , \u2026\n\n[ EU ] \nNo mark .\n"),
)
FILES: dict[str, object] = {
    "gamed.csv": "index,std_delta_len,instruction_difficulty,preference\n" + "".join(
        f"{i % 14},{i % 4 - 1.5},{i % 14 / 7 - 1},{i % 2 if i else ''}\n" for i in range(40)),
    "rubric.txt": "The kinder answer is better.\n", "talks.jsonl": TALKS,
    "grid.jsonl": [{"weight": 0}, {"weight": 2, "topk": 4}, {"method": "best-of-n", "best_of": 2},
                   {"method": "segment", "segment": 3, "best_of": 2}, {"method": "stochastic", "margin": 1}],
    "results.jsonl": [{"method": name, "step": step, "kl": step * slope, "reward": at + step * slope, "share": step}
                      for name, at, slope in (("exo", 0.5, 0.2), ("dpo", 0.3, 0.3)) for step in (1, 2, 4)],
    "broken.jsonl": '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a",\n{"prompt": "d", "chosen": 3}\n',
    "nothing.jsonl": [{"prompt": "a", "completions": ["b"]}, {"prompt": "c"}],
    "torn.jsonl": [*TALKS, {"messages": [{"role": "user"}]}],
}

# Runs commands that need a model, a JSON list a line, as `python -c` would, but with torch imported already.
FORKS = """
import gc, json, os, sys
import peft, torch
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification, get_scheduler
gc.freeze()
for asked in iter(sys.stdin.readline, ""):
    child = os.fork()
    if not child:
        for number, name in enumerate((os.devnull, "../out", "../err")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        code, *sys.argv[1:] = json.loads(asked)
        try:
            exec(code)
        except SystemExit as end:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(end.code or 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def write(path: Path, content: object) -> None:
    """An input file, in the form that its name asks for."""
    if not isinstance(content, str):
        rows = ".jsonl" in path.name
        content = "".join(json.dumps(row) + "\n" for row in content) if rows else json.dumps(content)
    path.write_bytes(gzip.compress(content.encode(), mtime=0) if path.suffix == ".gz" else content.encode())


def derive(work: Path) -> None:
    """What no command makes: four answers to each toy prompt, a chat template."""
    pairs = [json.loads(line) for line in (work / "toy.out").read_text().splitlines()]
    write(work / "four.jsonl", [{"id": one["id"], "prompt": one["prompt"], "completions": [
        one["chosen"], one["rejected"], two["chosen"], two["rejected"]]} for one, two in pairwise(pairs[:25])])
    if (work / "sft").exists():
        write(work / "sft/chat_template.jinja", "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")


class Echo(BaseHTTPRequestHandler):
    """A server of OpenAI's completions and chat completions that says what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = json.dumps({name: asked[name] for name in sorted(asked.keys() - {"n", "stop"})})
        texts = [f"{i} {said} END" for i in range(asked.get("n", 1))]
        choices = [{"finish_reason": "length", "text": text, "message": {"content": text}} for text in texts]
        body = json.dumps({"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def cleaned(path: Path) -> bytes:
    """A file without what differs from run to run; of weights name, type, shape and hash of each."""
    data = path.read_bytes()
    if path.suffix == ".png":
        return data
    if path.suffix == ".safetensors":
        size = 8 + int.from_bytes(data[:8], "little")
        told = {name: info for name, info in json.loads(data[8:size]).items() if name != "__metadata__"}
        parts = {name: data[size:][slice(*info.pop("data_offsets"))] for name, info in told.items()}
        return "".join(f"{name} {told[name]} {hashlib.sha256(parts[name]).hexdigest()}\n" for name in told).encode()
    text = re.sub(r'("(?:tokens_per_second|seconds\w*)": ?)(\[[\d., e-]*]|[\d.e-]+|null)', r"\1null", data.decode())
    if path.name == "run.json":
        run = {name: value for name, value in json.loads(text).items() if name != "versions"}
        run["options"] = {name: value for name, value in run["options"].items() if not name.endswith("_files")}
        text = json.dumps(run, indent=1)
    return text.encode()


class Recorder:
    """Runs commands of a checkout one by one and keeps what comes of them in `folder`, hashes of it in `hashes`."""

    def __init__(self, checkout: Path, folder: Path, top: Path):
        self.folder, self.work, self.hashes = folder, top / "work", {}
        for name in ("lib", "tools"):  # a copy: the checkout may change meanwhile
            shutil.copytree(checkout / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI")} | {
            "PYTHONPATH": f"{top / 'lib'}:{top / 'tools'}", "GOMP_SPINCOUNT": "2000", "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1", "MPLCONFIGDIR": str(top), "COLUMNS": "100", "PYTHONWARNINGS": "ignore"}
        self.work.mkdir()
        self.forks = self.python(FORKS, stdin=subprocess.PIPE)

    def python(self, *code: str, **settings: object) -> subprocess.Popen:
        """An interpreter in the working folder."""
        return subprocess.Popen([sys.executable, "-c", *code], cwd=self.work, env=self.environment, text=True,
                                stdout=subprocess.PIPE, **{"stdin": subprocess.DEVNULL, **settings})

    def run(self, name: str, line: str, kind: str = "exact") -> str:
        """Run a command, keep what it says and the files it writes, return its standard output."""
        started, (program, *given) = time.time_ns(), shlex.split(line)
        code = f"import sys; from {program.replace('-', '_')} import main; main(prog_name={program!r})"
        if "dtype" in line:
            print(json.dumps([code, *given]), file=self.forks.stdin, flush=True)
            end = int(self.forks.stdout.readline())
            out, err = ((self.work.parent / stream).read_text() for stream in ("out", "err"))
        else:
            process = self.python(code, *given, stderr=subprocess.PIPE)
            (out, err), end = process.communicate(), process.wait()
        said = re.sub(r"\d+\.\d s\b( \+ \d+\.\d s loading)?", "T s", err)
        said = f"exit {end}\n" + re.sub(r"[\d,]+ (\w+)/s", r"N \1/s", said)
        own = self.work / f"{name}.out"
        own.write_text(out)
        kept = {"stderr": ("exact", said.encode())}
        for path in self.work.rglob("*"):  # but for what commands remember for themselves
            if path.is_file() and path.stat().st_mtime_ns >= started and not re.search(r"\.(state|cache)\b", path.name):
                shown = "stdout" if path == own else str(path.relative_to(self.work))
                kept[shown] = ("run" if path.name == "run.json" else kind, cleaned(path))
        for shown, (of, data) in kept.items():
            (self.folder / name / shown).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name / shown).write_bytes(data)
            seen = data[:24] if of == "close" and shown.endswith(".png") else data  # its size
            self.hashes[f"{name}/{shown}"] = [of, hashlib.sha256(seen).hexdigest()]
        if end and not name.startswith("bad"):
            print(f"{name}: {said}", file=sys.stderr)
        return out


def table() -> list[tuple[str, str, str]]:
    """Name, command and kind of all that is in SETS and TABLE."""
    found = [(f"set-{file}", f"al-data {told} --from {file}", "exact") for told, file, _ in SETS]
    for section in TABLE.split("\n= ")[1:]:
        command, _, entries = section.strip().partition("\n")
        for entry in re.split(r" \| |\n", entries):
            name, rest = entry.lstrip("~").split(":", 1)
            whole, kind = command.replace("@", name) + rest, "close" if entry.startswith("~") else "exact"
            found.append((name, whole, kind))
            if "--json" in rest:
                found.append((f"{name}-table", re.sub(r"--json|--plot \S+", "--table", whole), kind))
    return found


def record(checkout: Path, folder: Path) -> None:
    """Run --help and --schema of every command and subcommand, then all that is in the table."""
    started, names = time.monotonic(), list(COMMANDS)
    if folder.exists() and not (folder / "hashes.json").exists():
        sys.exit(f"{folder}: there, but no whole record")
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as top, ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        recorder = Recorder(checkout, folder, Path(top))
        judge = recorder.python("from al_data import main; main()", "toy", "--serve-judge", "0")
        try:
            places = {"echo": f"http://127.0.0.1:{echo.server_port}/v1", "url": judge.stdout.readline()[:-1], **SHORT}
            for name, content in (*FILES.items(), *(made[1:] for made in SETS)):
                write(recorder.work / name, content)
            for name in names:
                text = recorder.run(f"help-{name.replace(' ', '-')}", f"{name} --help", "help")
                recorder.run(f"schema-{name.replace(' ', '-')}", f"{name} --schema")
                names += [name + offer for offer in sorted(offers(text)) if offer.startswith(" ")]
            for name, line, kind in table():
                recorder.run(name, line.format(**places), kind)
                if name in ("toy", "sft"):
                    derive(recorder.work)
        finally:
            judge.kill()
            recorder.forks.kill()
            echo.shutdown()
    (folder / "hashes.json").write_text(json.dumps(recorder.hashes, indent=1))
    print(f"{len([*folder.iterdir()]) - 1} commands, {len(recorder.hashes)} files, {time.monotonic() - started:.0f} s")


def offers(text: str) -> set[str]:
    """What click's --help lists: "--option", "--option choice" and " subcommand"."""
    listed, _, subcommands = text.partition("\nOptions:")[2].partition("\nCommands:")
    found = {f" {name}" for name in re.findall(r"^  ([a-z]\S*)", subcommands, re.M)}
    for column in re.findall(r"^  (-.*?)(?:  |$)", listed, re.M):
        names, choices = re.findall(r"(?<![\w-])--?[a-z][\w-]*", column), re.search(r" \[(.+)\]", column)
        found |= {*names, *(f"{names[-1]} {choice}" for choice in (choices[1].split("|") if choices else ()))}
    return found


def alike(one: object, two: object, rounding: float, more: bool) -> bool:
    """Whether two JSON values differ by rounding at most, and by new names of the second's where there may be more."""
    if isinstance(one, dict) and isinstance(two, dict):
        names = [name for name in two if name in one or not more]
        return list(one) == names and all(alike(one[name], two[name], rounding, more) for name in names)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(alike(*both, rounding, more) for both in zip(one, two, strict=True))
    if rounding and {type(one), type(two)} in ({float}, {float, int}):
        return math.isclose(one, two, rel_tol=rounding, abs_tol=rounding)
    return one == two


def differs(kind: str, one: str, two: str) -> tuple[bool, str]:
    """Whether two outputs that are not the same differ in what may not; what is to be said of it."""
    if kind == "help":
        before, after = offers(one), offers(two)
        return bool(before - after), f"without {sorted(before - after)}, with new {sorted(after - before)}"
    if kind == "run":
        return not alike(json.loads(one), json.loads(two), 0, True), "with new options"
    if kind == "exact":
        return True, ""
    try:  # one value, or one a line
        values = [json.loads("[" + re.sub(r"\n(?={)", ",", text.strip()) + "]") for text in (one, two)]
    except ValueError:
        values = [one, two]
    return not alike(*values, TOLERANCE, False), ""


def compare(one: Path, two: Path) -> int:
    """Name what differs between two records; 1 where anything does that may not."""
    before, after = (json.loads((folder / "hashes.json").read_text()) for folder in (one, two))
    wrong = 0
    for name in sorted(name for name in before | after if before.get(name) != after.get(name)):
        bad, words = name in before or not name.startswith(("help-", "schema-")), "in one record only"
        if name in before and name in after:
            texts = ((folder / name).read_text(errors="surrogateescape") for folder in (one, two))
            bad, words = differs(before[name][0], *texts)
        wrong += bad
        if bad or words:
            print(f"{'differs' if bad else 'allowed'}: {name} {words}")
    print(f"{len(before)} files, {wrong} of them differ")
    return int(wrong > 0)


if __name__ == "__main__":
    task, first, second = sys.argv[1:]
    sys.exit(record(Path(first), Path(second)) if task == "record" else compare(Path(first), Path(second)))
