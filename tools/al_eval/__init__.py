"""al-eval: records -> figures, as JSON in a pipe, a table on a terminal, a plot with --plot.

    in    {"prompt": "Hi", "completions": ["Hello.", "What?"], "rewards": [1.5, -0.5]}
    out   {"what": "reward", "records": 1, "reward": {"mean": 0.5, "low": null, "high": null, "n": 2}, ...}

    al-sample sft prompts.jsonl | al-score rm | al-eval reward

A mean is {mean, low, high, n}: low and high bound its 95 % bootstrap interval, n is how many numbers went in.
Completions of one record are drawn together, since they resemble each other. Each subcommand is in a file named
for what it is about.
"""

from al_eval.compare import curve, frontier, table
from al_eval.paired import difference
from al_eval.reward import kl, reward
from al_eval.reward_model import rm
from al_eval.steering import conditions, toxicity
from al_eval.text import text
from al_eval.winrate import winrate
from alignlib.cli import options

READS = ("prompt", "completions", "rewards", "logps", "ref_logps", "completion_ids", "finish_reasons", "winner",
         "win_probability", "orders_agree", "unparsed", "human_winner", "condition", "domain")


@options.group(may=READS, writes=options.FIGURES)
def main() -> None:
    """Figures about records, with intervals: JSON in a pipe, a table on a terminal, --plot FILE for a picture.

    Each mean is {mean, low, high, n}, with its 95 % bootstrap interval over records.
    """


for part in (reward, rm, winrate, kl, text, conditions, toxicity, frontier, difference, curve, table):
    main.add_command(part)
