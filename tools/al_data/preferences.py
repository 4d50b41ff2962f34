"""Sets of answers that people or models preferred to others -> records: pairs, and questions with ranked answers.

Where a question has more than two answers, the best and the worst become chosen and rejected; with `every`, all of them
become completions, best first, with their rewards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

from al_data.dialogues import SPEAKERS, Dialogue, alternate, first_difference, stripped, turns
from al_data.row import Row, is_own, number, objects, own, string, unmarked
from al_data.texts import tldr_prompt
from alignlib.records.dialogue import answer
from alignlib.records.jsonl import DataError, Record, Skip, kind

# --------------------------------------------------------------------------------------- HH, TL;DR

HH_PARTS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")


def hh(row: Record) -> Record:
    """{chosen, rejected}, whole dialogues -> {prompt, chosen, rejected}, the first Assistant turns that differ.

    As EXO's preprocessing, less its defects: both sides are stripped alike, so that turns which differ by white space
    alone are equal, and a speaker's name inside a turn stays.
    """
    if is_own(row):
        return own(row, "prompt", "chosen")
    texts = [string(row, name) for name in ("chosen", "rejected")]
    chosen, rejected = map(turns, texts)
    place = first_difference(chosen, rejected)
    before = chosen[:place]
    text = "".join(f"\n\n{SPEAKERS[turn['role']]}:{turn['content']}" for turn in before) + "\n\nAssistant:"
    return {"prompt": Dialogue(stripped(before), text), "chosen": answer(chosen[place]["content"]),
            "rejected": answer(rejected[place]["content"])}


def tldr_pref(row: Record) -> Record:
    """{info: {subreddit, title, post}, summaries: [{text}, {text}], choice: 0 | 1} -> {prompt, chosen, rejected}.

    The set also holds comparisons of news articles, which have no post: they are skipped.
    """
    if is_own(row):
        return own(row, "prompt", "chosen", "rejected")
    info, summaries, choice = row.get("info"), row.get("summaries"), row.get("choice")
    if not isinstance(info, dict):
        raise ValueError(f"info: expected an object, got {kind(info)}")
    if not isinstance(summaries, list) or len(summaries) != 2 or not all(isinstance(s, dict) for s in summaries):
        raise ValueError("summaries: expected two objects")
    if type(choice) is not int or choice not in (0, 1):
        raise ValueError(f"choice: expected 0 or 1, got {choice!r}")
    if info.get("post") is None:
        raise Skip("no post")
    texts = [f" {string(summary, 'text').strip()}" for summary in summaries]
    return {"prompt": tldr_prompt(info), "chosen": texts[choice], "rejected": texts[1 - choice]}


# ---------------------------------------------------------------------------------- ranked answers


def ranked(prompt: str, answers: Iterable[tuple[float, str]], every: bool = False, name: object = None) -> Record:
    """(score, text) of the answers, in any order -> a record. Skip where no score is above another."""
    known = {"id": name} if isinstance(name, str) else {}
    pairs = sorted(((score, answer(text)) for score, text in answers if text.strip()), key=lambda pair: -pair[0])
    if len(pairs) < 2:
        raise Skip("fewer than two answers")
    (best, chosen), (worst, rejected) = pairs[0], pairs[-1]
    if best == worst:
        raise Skip("no answer preferred")
    if every:
        return {**known, "prompt": prompt, "completions": [text for _, text in pairs],
                "rewards": [score for score, _ in pairs]}
    if chosen == rejected:
        raise Skip("the same answer twice")
    return {**known, "prompt": prompt, "chosen": chosen, "rejected": rejected}


def ultrafeedback(row: Record, every: bool = False) -> Record:
    """{instruction, completions: [{response, overall_score}]} -> a record of its answers; or the same in pairs:

    {prompt, prompt_id, chosen: [{role, content}], rejected: [...]}, and, as the AI-feedback study has it,
    {prompt, chosen: "Human: prompt\\n\\nAssistant: answer", rejected: ...} -> {id, prompt, chosen, rejected}.
    """
    if "instruction" in row:
        rated = [(number(item, "overall_score"), string(item, "response")) for item in objects(row, "completions")]
        unmarked(string(row, "instruction"))
        return ranked(alternate(row["instruction"].strip()), rated, every)
    if "messages" in row and "prompt" not in row or isinstance(row.get("prompt"), list):
        return own(row, "prompt", "chosen", "rejected")
    prompt, system = string(row, "prompt"), []
    head = f"Human: {prompt}\n\nAssistant: "
    if isinstance(row.get("chosen"), list):
        pair = [string((objects(row, side) or [{}])[-1], "content") for side in ("chosen", "rejected")]
        system = [string(turn, "content") for turn in row["chosen"] if turn.get("role") == "system"]
    elif string(row, "chosen").startswith(head):
        pair = [string(row, side).removeprefix(head) for side in ("chosen", "rejected")]
    else:
        return own(row, "prompt", "chosen", "rejected")
    unmarked(prompt, *pair)
    return ranked(alternate(prompt.strip(), system=system), zip((1.0, 0.0), pair, strict=True), every,
                  row.get("prompt_id"))


def shp(row: Record, least: float = 2.0) -> Record:
    """{post_id, history, human_ref_A, human_ref_B, labels, score_A, score_B} -> {id, prompt, chosen, rejected}.

    labels: 1 where A is preferred, 0 where B is. Pairs whose scores' ratio is below `least` are left out.
    """
    if is_own(row):
        return own(row, "prompt", "chosen", "rejected")
    texts = [string(row, "human_ref_A"), string(row, "human_ref_B")]
    low, high = sorted((number(row, "score_A"), number(row, "score_B")))
    label = row.get("labels")
    if label not in (0, 1) or isinstance(label, bool):
        raise ValueError(f"labels: expected 0 or 1, got {label!r}")
    if high < least * low:
        raise Skip(f"scores' ratio under {least:g}")
    return ranked(alternate(string(row, "history").strip()), zip((label, 1 - label), texts, strict=True),
                  name=row.get("post_id"))


def webgpt(row: Record, every: bool = False) -> Record:
    """{question: {full_text}, answer_0, answer_1, score_0, score_1} -> a record; comparisons scored 0 are ties."""
    if is_own(row):
        return own(row, "prompt", "chosen", "rejected")
    question = row.get("question")
    if not isinstance(question, dict):
        raise ValueError("question: expected an object")
    rated = [(number(row, f"score_{i}"), string(row, f"answer_{i}")) for i in (0, 1)]
    return ranked(alternate(string(question, "full_text").strip()), rated, every)


# ------------------------------------------------------------------------------ StackExchange


def stackexchange(row: Record, every: bool = False) -> Record:
    """{qid, question, answers: [{text, pm_score}]}, texts in HTML -> a record of plain texts.

    Code blocks keep their <code> marks, as in the AI-feedback study; whose text lost links and inline code, ours does
    not.
    """
    if is_own(row):
        return own(row, "prompt", "chosen", "rejected")
    rated = [(number(item, "pm_score"), plain(string(item, "text"))) for item in objects(row, "answers")]
    question = plain(string(row, "question"))
    if not question:
        raise Skip("no question")
    return ranked(alternate(question), rated, every, None if row.get("qid") is None else str(row["qid"]))


def plain(html: str) -> str:
    """The text of HTML: its blocks two newlines apart, code blocks between <code> and </code>."""
    reader = _Text()
    reader.feed(html)
    reader.close()
    return reader.text()


class _Text(HTMLParser):
    """The blocks of text in what it is fed."""

    BLOCKS = ("p", "pre", "li", "ul", "ol", "blockquote", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks, self.inside, self.code = [""], "", False

    def text(self) -> str:
        return "\n\n".join(filter(None, (block.strip() for block in self.blocks)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.BLOCKS:
            self.blocks.append("")
            self.code = tag == "pre"
        if tag == "br":
            self.blocks[-1] += "\n"
        if self.code and tag == "code":
            self.blocks[-1] += "<code>"

    def handle_endtag(self, tag: str) -> None:
        if self.code and tag == "code":
            self.blocks[-1] += "</code>"
        if tag in self.BLOCKS:
            self.blocks.append("")
            self.code = False

    def handle_data(self, data: str) -> None:
        self.blocks[-1] += data if self.code else " ".join(data.split("\n"))


# -------------------------------------------------------------------------------------- OASST


def trees(rows: Iterable[Row]) -> Iterator[Row]:
    """Messages {message_id, parent_id, role, text, rank} -> trees {message_id, ..., replies}. Reads all rows first.

    Rows that are trees already ({prompt: {..., replies}}) pass through. A reply whose parent is not there is an error.
    """
    known: dict[str, Row] = {}
    for where, row in rows:
        if isinstance(row.get("prompt"), dict):
            yield where, row["prompt"]
            continue
        if not isinstance(row.get("message_id"), str):
            raise DataError(f"{where}: message_id: expected a string")
        try:
            must_be_message(row)
        except ValueError as error:  # in its tree it would go by the line of the first message
            raise DataError(f"{where}: {error}") from error
        known[row["message_id"]] = (where, {**row, "replies": []})
    for where, message in known.values():
        parent = message.get("parent_id")
        if not isinstance(parent, str | None):
            raise DataError(f"{where}: parent_id: expected a string or null, got {kind(parent)}")
        if parent is not None and parent not in known:
            raise DataError(f"{where}: parent_id: no such message")
        if parent is not None:
            known[parent][1]["replies"].append(message)
    yield from ((where, message) for where, message in known.values() if message.get("parent_id") is None)


def must_be_message(row: Record) -> None:
    """Raises ValueError for one whose text or rank is none; a deleted one needs neither."""
    if not row.get("deleted"):
        string(row, "text")
        if row.get("rank") is not None:
            number(row, "rank")


def oasst(tree: Record, every: bool = False, lang: str | None = None) -> list[Record]:
    """A tree of messages -> a record for each prompter's message whose replies are ranked (0 is the best).

    lang: only conversations in that language ("en"). With `every` the rewards are minus the ranks.
    """
    if lang and tree.get("lang") != lang:
        raise Skip(f"not in {lang}")
    records = list(_questions(tree, [], every))
    if not records:
        raise Skip("no ranked answers")
    return records


def _questions(message: Record, before: list[str], every: bool) -> Iterator[Record]:
    """Down the tree, the turns so far in `before`; deleted messages and what follows them are left out."""
    if message.get("deleted"):
        return
    texts, replies = [*before, string(message, "text").strip()], objects(message, "replies")
    if message.get("role") == "prompter":
        rated = [(-number(reply, "rank"), string(reply, "text")) for reply in replies
                 if reply.get("rank") is not None and not reply.get("deleted")]
        rated = list({text.strip(): (score, text) for score, text in rated if text.strip()}.values())
        if len({score for score, _ in rated}) > 1:
            yield ranked(alternate(*texts), rated, every, message.get("message_id"))
    for reply in replies:
        yield from _questions(reply, texts, every)
