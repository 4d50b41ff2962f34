"""Questions with ranked answers -> records, in the forms the sets are published in."""

from collections import Counter

import pytest

from al_data.preferences import oasst, plain, ranked, shp, stackexchange, trees, ultrafeedback, webgpt
from al_data.row import convert
from al_data.texts import rtp
from alignlib.records.dialogue import dialogue_prompt
from alignlib.records.jsonl import DataError, Skip

PAIR = {"prompt": dialogue_prompt("Why?"), "chosen": " Good.", "rejected": " Bad."}


def test_the_best_and_the_worst_or_all():
    answers = [(2, "mid"), (3, "best"), (1, " worst\n"), (9, " ")]
    assert ranked("p", answers) == {"prompt": "p", "chosen": " best", "rejected": " worst"}
    assert ranked("p", answers, every=True, name="x") == {
        "id": "x", "prompt": "p", "completions": [" best", " mid", " worst"], "rewards": [3, 2, 1]}


@pytest.mark.parametrize("answers, reason", [
    ([], "fewer than two answers"), ([(1, "a"), (2, "")], "fewer than two answers"),
    ([(1, "a"), (1, "b")], "no answer preferred"), ([(1, "a"), (2, "a ")], "the same answer twice"),
])
def test_questions_without_a_preference_are_skipped(answers, reason):
    with pytest.raises(Skip, match=f"^{reason}$"):
        ranked("p", answers)


def test_the_forms_of_ultrafeedback():
    models = [{"model": "m", "response": text, "overall_score": score, "annotations": {}}
              for text, score in (("So so.", 6.0), ("Bad.", 1.5), ("Good.", 8.5))]
    row = {"source": "s", "instruction": "Why?", "completions": models}
    assert ultrafeedback(row) == PAIR
    assert ultrafeedback(row, every=True)["rewards"] == [8.5, 6.0, 1.5]
    sides = {side: [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": text}]
             for side, text in (("chosen", "Good."), ("rejected", "Bad."))}
    row = {"prompt": "Why?", "prompt_id": "k", **sides, "score_chosen": 8.5, "score_rejected": 1.5}
    assert ultrafeedback(row) == {"id": "k", **PAIR}
    sides = {side: f"Human: Why?\n\nAssistant: {text}" for side, text in (("chosen", "Good."), ("rejected", "Bad."))}
    assert ultrafeedback({"prompt": "Why?", **sides}) == PAIR
    assert ultrafeedback(PAIR) is PAIR
    with pytest.raises(Skip, match="mark"):
        ultrafeedback({"instruction": "<s>", "completions": []})


VOTES = {"post_id": "p1", "domain": "askdogs_train", "history": "Why?", "human_ref_A": "Bad.", "human_ref_B": "Good.",
         "labels": 0, "score_A": 3, "score_B": 6, "score_ratio": 2.0}


def test_shp():
    assert shp(VOTES) == {"id": "p1", **PAIR}
    assert shp({**VOTES, "labels": 1})["chosen"] == " Bad."
    assert shp({**VOTES, "score_B": 5}, least=1.5) == shp(VOTES)
    with pytest.raises(Skip, match="^scores' ratio under 2$"):
        shp({**VOTES, "score_B": 5})


def test_webgpt():
    row = {"question": {"dataset": "d", "id": "q", "full_text": "Why?\n"}, "answer_0": "Bad.", "answer_1": "Good.",
           "score_0": -0.5, "score_1": 0.5, "quotes_0": {}, "tokens_0": {}}
    assert webgpt(row) == PAIR
    with pytest.raises(Skip, match="no answer preferred"):
        webgpt({**row, "score_0": 0.0, "score_1": 0.0})


def test_stackexchange_is_made_plain():
    answers = [{"answer_id": i, "text": f"<p>{text}</p>", "pm_score": score, "selected": False}
               for i, (text, score) in enumerate((("Bad.", 0), ("Good.", 4), ("So so.", 2)))]
    row = {"qid": 12, "question": "<p>Why?</p>\n", "answers": answers, "date": "2020/01/01", "metadata": []}
    assert stackexchange(row) == {"id": "12", **PAIR}
    assert stackexchange(row, every=True)["completions"] == [" Good.", " So so.", " Bad."]
    with pytest.raises(Skip, match="no question"):
        stackexchange({**row, "question": "<p> </p>"})


def test_html_becomes_text():
    html = ("<p>Use <code>ls -l</code>, see <a href='x'>this\npage</a>:<br>now.</p>\n\n"
            "<pre><code>if a &lt; b:\n    run()\n</code></pre><ul>\n<li>one</li>\n<li>two</li></ul>tail &amp; end")
    assert plain(html) == ("Use ls -l, see this page:\nnow.\n\n<code>if a < b:\n    run()\n</code>\n\n"
                           "one\n\ntwo\n\ntail & end")


def message(name, parent, role, text, rank=None, **more):
    return {"message_id": name, "parent_id": parent, "role": role, "text": text, "rank": rank, "lang": "en",
            "deleted": False, **more}


TALK = [
    message("q", None, "prompter", "Why?"),
    message("a1", "q", "assistant", "Bad.", 1), message("a0", "q", "assistant", "Good.", 0),
    message("gone", "q", "assistant", "Rude.", 2, deleted=True), message("late", "q", "assistant", "Unranked."),
    message("q2", "a0", "prompter", "Really?"),
    message("b0", "q2", "assistant", "Yes.", 0), message("b1", "q2", "assistant", "No.", 1),
    message("b2", "q2", "assistant", "Um.", 2),
]


def asked_of(rows, **given):
    return [record for _, tree in trees(rows) for record in oasst(tree, **given)]


def test_oasst_asks_at_every_branch():
    rows = [(f"f:{i}", row) for i, row in enumerate(TALK, 1)]
    later = {"id": "q2", "prompt": dialogue_prompt("Why?", "Good.", "Really?"), "chosen": " Yes.", "rejected": " Um."}
    assert asked_of(rows) == [{"id": "q", **PAIR}, later]
    assert asked_of(reversed(rows)) == [{"id": "q", **PAIR}, later]  # in any order
    assert asked_of(rows, every=True)[1]["rewards"] == [0, -1, -2]
    for reason, given in (("not in de", {"lang": "de"}), ("no ranked answers", {})):
        with pytest.raises(Skip, match=reason):
            oasst({**TALK[0], "replies": []}, **given)


def test_oasst_s_own_trees():
    tree = {"message_tree_id": "q", "prompt": {**TALK[0], "replies": [{**row, "replies": []} for row in TALK[1:5]]}}
    assert asked_of([("f:1", tree)]) == [{"id": "q", **PAIR}]


def test_a_message_without_its_parent_is_named():
    with pytest.raises(DataError, match="^f:2: parent_id: no such message$"):
        list(trees([("f:2", TALK[1])]))
    with pytest.raises(DataError, match="^f:3: message_id: expected a string$"):
        list(trees([("f:3", {"text": "x"})]))


def test_rtp():
    row = {"filename": "f", "begin": 0, "prompt": {"text": "The dog", "toxicity": 0.1},
           "continuation": {"text": " barked.", "toxicity": 0.25}}
    assert rtp(row) == {"prompt": "The dog", "completions": [" barked."], "rewards": [0.75]}
    with pytest.raises(Skip, match="no toxicity"):
        rtp({**row, "continuation": {"text": " barked.", "toxicity": None}})


@pytest.mark.parametrize("function, row, message", [
    (ultrafeedback, {"instruction": "a", "completions": [1]}, r"completions\[0\]: expected an object, got a number"),
    (ultrafeedback, {"instruction": "a", "completions": [{"response": "x"}]}, "overall_score: missing"),
    (ultrafeedback, {"prompt": "a", "chosen": []}, "content: missing"),
    (shp, {**VOTES, "labels": 2}, "labels: expected 0 or 1, got 2"),
    (shp, {**VOTES, "score_A": "3"}, "score_A: expected a number, got a string"),
    (webgpt, {"question": "Why?"}, "question: expected an object"),
    (stackexchange, {"answers": None}, "answers: expected an array, got null"),
    (oasst, {"text": 1, "replies": []}, "text: expected a string, got a number"),
    (rtp, {"prompt": {"text": "a"}}, "prompt, continuation: expected objects"),
])
def test_rows_of_another_form_are_named(function, row, message):
    with pytest.raises(DataError, match=f"^f:3: {message}$"):
        list(convert([("f:3", row)], function, Counter()))
