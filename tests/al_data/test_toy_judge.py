"""The toy world's judge: what it answers to each form of question, over HTTP and without."""

import json
import threading
import urllib.error
import urllib.request

import pytest

from al_data import toy_judge
from alignlib.toy import world

PAINT = "\n\nHuman: How do I paint the old door in the kitchen?\n\nAssistant:"
GOOD, BAD = " Use a brush to paint the door.", " Ugh, use a saw."


def question(form, **texts):
    """As al-label-ai asks: the texts between tags with a code, after them what form the answer must have."""
    tags = {name.replace("_", " ") + " 0123456789abcdef": text for name, text in texts.items()}
    tagged = "".join(f"<{tag}>\n{text}\n</{tag}>\n" for tag, text in tags.items())
    return {"model": "overall", "messages": [{"role": "user", "content": f"{tagged}{form}."}]}


def ask(request):
    return toy_judge.answer(request)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("first, second, letter", [(GOOD, BAD, "A"), (BAD, GOOD, "B"), (GOOD, GOOD, "C")])
def test_the_letter_is_the_better_answer_s(first, second, letter):
    texts = {"prompt": PAINT, "answer_A": first, "answer_B": second}
    assert ask(question("Answer with one letter", **texts)) == letter
    as_json = question("Answer with one letter. Write the answer as a JSON object", **texts)
    assert json.loads(ask(as_json)) == {"verdict": letter}


def test_scores_are_of_ten():
    assert [toy_judge.out_of_ten(value) for value in (-9, -2, 0, 2, 9)] == [1, 1, 5, 10, 10]
    assert ask(question("Answer with one whole number", prompt=PAINT, answer=GOOD)) == str(
        toy_judge.out_of_ten(world.score("overall", PAINT, GOOD)))
    both = question("Answer with two whole numbers", prompt=PAINT, answer_A=GOOD, answer_B=BAD)
    assert ask(both) == "9 2"  # of 1.5 and -1.5


@pytest.mark.parametrize("answer, category", [
    (GOOD, "Harmless and very helpful"), (" Paint the door.", "Harmless and helpful"),
    (BAD, "Harmless and not helpful"), (" Use acid.", "Harmful"),
])
def test_categories_weigh_harm_and_help(answer, category):
    assert ask(question("Answer with the name of one category", prompt=PAINT, answer=answer)) == category


def test_a_review_is_three_lines():
    assert ask(question("Review the answer in three lines", prompt=PAINT, answer=GOOD)) == (
        "Analysis: For overall the answer is good.\nFeedback: A good answer.\nScore: 2")


@pytest.mark.parametrize(("facts", "word"), [
    ("My sister lost my bike at the park. I feel sad.", "excellent"), ("My sister lost my bike at the park.", "good"),
    ("My sister lost it.", "mediocre"), ("My uncle lost my lamp.", "bad")])
def test_a_summary_is_excellent_only_with_all_its_facts(facts, word):
    post = "SUBREDDIT: r/advice\nTITLE: Help\nPOST: My sister lost my bike at the park. I feel sad.\nTL;DR:"
    request = question("Review the answer in three lines", prompt=post, answer=f" {facts}") | {"model": "summary"}
    assert f"A {word} answer." in ask(request)


def test_what_a_text_says_is_not_the_question():
    """The last text of a tag counts, examples come before it; a form named inside a text is none."""
    request = question("Answer with one letter", prompt=PAINT, answer_A=GOOD, answer_B="Answer with one whole number")
    assert ask(request) == "A"
    content = request["messages"][0]["content"]
    assert toy_judge.text(content + content.replace(GOOD, BAD), "answer A") == BAD


@pytest.mark.parametrize(("request_", "words"), [
    ({"model": "gpt", "messages": []}, "no model 'gpt'"), ({"model": "overall"}, "messages"),
    ({"model": "overall", "messages": [{"role": "user", "content": "Hi"}]}, "no form of answer"),
    ({"model": "overall", "messages": [{"role": "user", "content": "Answer with one letter"}]}, "no <prompt>"),
])
def test_what_the_oracle_is_not_asked(request_, words):
    with pytest.raises(toy_judge.NotUnderstood, match=words):
        toy_judge.answer(request_)


def test_the_server_s_faults_have_bodies():
    with toy_judge.Server(0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        good = json.dumps(question("Answer with one letter", prompt=PAINT, answer_A=GOOD, answer_B=BAD)).encode()
        with urllib.request.urlopen(f"{url}/v1/chat/completions", good) as reply:
            assert json.load(reply)["usage"]["completion_tokens"] == 1
        for path, body, status, words in (("/v1/models", good, 404, "/v1/models: not here"),
                                          ("/v1/chat/completions", b"[]", 400, "expected an object"),
                                          ("/v1/chat/completions", b"{", 400, "")):
            with pytest.raises(urllib.error.HTTPError) as fault:
                urllib.request.urlopen(url + path, body)
            with fault.value as reply:
                assert reply.status == status and words in json.load(reply)["error"]["message"]
        server.shutdown()
