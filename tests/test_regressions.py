"""Bugs that users of other alignment libraries keep reporting, and the tests that keep them out of ours.

     bug (in others' trackers)                           kept out by, beside the tests here
 1   a prompt fills max_length: no completion is left    test_encoding: a_prompt_never_takes_the_whole_length
 2   pad = eos hides the end-of-sequence                 test_encoding: end_of_sequence_survives_pad_being_...
 3   two BOS                                             test_encoding: one_bos_and_only_if_the_tokenizer_adds_one
 4   another template in training than in serving        test_encoding: a_chat_template_is_applied_once_...
 5   tokens merge across the border                      test_encoding: no_token_crosses_the_border, ..._start_mark
 6   log-probabilities depend on the batch's shape       test_policy: numbers_do_not_depend_on_the_batch
 7   the wrong reference with a pretrained LoRA          test_load: a_pretrained_adapter_is_part_of_the_policy
 8   a resumed run replays data in another order         test_run_folder: a_resumed_run_is_the_unbroken_one
 9   full logits: out of memory                          test_policy: the_head_sees_completion_positions_in_chunks_...
10   fused losses drift from the plain ones              test_logps (one of each): chunks_change_neither_...
11   packed texts see each other                         test_policy: a_completion_is_blind_to_the_others
12   a reward model reads the wrong token, pad = eos     test_policy: packed_rewards_are_those_of_...
13   accumulation is not the full batch                  test_loop: the_split_of_a_batch_does_not_change_its_step
14   the last batch is dropped                           test_loop: an_epoch_is_a_permutation_...
15   a judge's odd answer kills the batch, or counts 0   test_server_judge: what_stays_unreadable_is_null_...
16   a server's own word for the end ends the run        test_server_judge: an_answer_is_read_however_it_is_wrapped
17   a refusal is asked for again, and lost              test_server_judge: a_refusal_is_asked_for_once_and_...
18   an error under status 200 says nothing of itself    test_server_judge: what_is_no_answer_ends_the_run_...
19   control tokens in a judged text end its turn        test_server_judge: a_server_is_shown_no_control_tokens
20   a sliding window is taken for the context           test_architectures: numbers_are_transformers_own
"""

import json
import math

import pytest
import torch

from al_sft import Likelihood
from al_train_exo.reference import add_ref_logps
from al_train_rm.ranking import Ranking
from alignlib.models import load, scoring
from alignlib.models.encoding import Encoder
from alignlib.models.packs import plan
from alignlib.models.policy import Policy, RewardModel
from alignlib.training import batches, loop, passes
from alignlib.training.engine import AskingEngine
from alignlib.training.run_folder import Run
from helpers import tiny
from helpers.commands import lines, run

LONG = "x" * 1000


def policy_of(folder):
    return load.load_policy(tiny.save(tiny.causal("llama"), folder), "cpu", "fp32", train=True)


def test_1_a_prompt_that_fills_the_context_leaves_a_loss(tmp_path):
    """Through the model's own encoder: completions stay, the loss is a number above 0, and the cut is counted."""
    policy = policy_of(tmp_path / "policy")
    encoder = load.encoder_for(policy)
    made = Likelihood("token").example(encoder, {"prompt": LONG, "chosen": " Yes"})
    assert made.length == tiny.CONTEXT and encoder.cut == {"prompts_cut": 1, "completions_cut": 0}
    loss, _ = Likelihood("token")(policy, policy.pack([made]))
    assert math.isfinite(loss.item()) and loss.item() > 0 and Likelihood("token").size(made) == 5
    pair = tiny.contrast().example(encoder, {"prompt": LONG, "completions": [LONG, ""], "rewards": [1, 0]})
    pair.values["ref_logps"] = [0.0, 0.0]
    assert pair.length <= tiny.CONTEXT + 1 and len(pair.prompt) == tiny.CONTEXT // 2
    assert math.isfinite(tiny.contrast()(policy, policy.pack([pair]))[0].item())


def test_2_end_of_sequence_is_learnt_where_it_is_the_padding():
    """Its probability rises in training with pad = eos, rows of unequal length, in plain and in shared rows."""
    words = tiny.tokenizer(pad=tiny.EOS)
    policy = Policy(tiny.causal("llama"), words)
    encoder = load.encoder_for(policy)
    records = [{"prompt": "Q", "chosen": text} for text in (" a", " longer one")]
    batch = policy.pack([Likelihood("token").example(encoder, record) for record in records])
    assert batch.targets.tolist().count(words.eos_token_id) == 2
    ends = batch.targets == words.eos_token_id
    optimizer = torch.optim.SGD(policy.core.parameters(), lr=0.02)
    before = policy.token_logps(batch)[ends].detach()
    for _ in range(5):
        optimizer.zero_grad()
        Likelihood("token")(policy, batch)[0].backward()
        optimizer.step()
    assert (policy.token_logps(batch)[ends] > before).all()


def test_4_training_and_sampling_read_the_same_prompt():
    """al-sft's rows begin with exactly what al-sample feeds the model, template or not."""
    words = tiny.tokenizer()
    words.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<bot>"
    encoder = Encoder(words, max_length=99)
    for record in ({"prompt": "Q: the"}, {"messages": [{"role": "you", "content": "the"}]}):
        assert Likelihood("token").example(encoder, {**record, "chosen": " a"}).prompt == encoder.prompt(record)


def test_5_what_was_sampled_is_what_is_trained_on():
    """A completion that was drawn in unusual tokens keeps them through the record."""
    words = tiny.tokenizer()
    drawn = list(b" the")  # the tokenizer itself would write two tokens
    record = {"prompt": "Q", "completions": [" the"], "completion_ids": [drawn], "rewards": [1.0]}
    made = Encoder(words, max_length=99).encode(record, record["completions"])
    assert made.completions == [[*drawn, words.eos_token_id]]
    assert len(words(" the", add_special_tokens=False)["input_ids"]) < len(drawn)


def test_7_new_adapters_on_a_trained_policy_start_at_that_policy(tmp_path):
    """--lora on a policy: its reference is the policy it starts from, also after adapters moved it."""
    policy = policy_of(tmp_path / "policy")
    data = tiny.stored(tiny.example(3 + i, 4, 6, rewards=[1.0, 0.0]) for i in range(6))
    with torch.no_grad():
        wanted = [policy.logps(policy.pack([example]))[0].tolist() for example in data]
    recipe = tiny.recipe(tmp_path / "run", lora=2, steps=4, batch_size=3)
    run = Run(recipe, {"command": "test"})
    run.reads(0)
    add_ref_logps(policy, data, recipe, run, policy.logps)
    entry = loop.fit(policy, data, tiny.contrast(), recipe, run)
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and entry["loss"] < first["loss"]
    assert [example.values["ref_logps"] for example in data] == [pytest.approx(row, rel=1e-5) for row in wanted]


def test_8_the_reference_of_a_resumed_run_is_the_first_policys(tmp_path):
    """A resumed policy has moved: what it was compared with is read from the run's folder, not computed again."""
    data = tiny.stored(tiny.example(3 + i, 4, 6, rewards=[1.0, 0.0]) for i in range(6))
    held_out = tiny.stored(data[:2])
    recipe = tiny.recipe(tmp_path / "run", batch_size=3)
    run, policy = Run(recipe, {"command": "test"}), policy_of(tmp_path / "policy")
    run.reads(0)
    add_ref_logps(policy, data, recipe, run, policy.logps, held_out)
    before = [example.values["ref_logps"] for example in [*data, *held_out]]
    torch.nn.init.zeros_(policy.core.lm_head.weight)
    add_ref_logps(policy, data, recipe, run, policy.logps, held_out)
    assert [example.values["ref_logps"] for example in [*data, *held_out]] == before


def test_12_a_score_is_read_at_the_last_token_whatever_the_batch():
    """pad = eos; alone or beside longer ones, through al-score's own packs: the same score, and of the right token."""
    words = tiny.tokenizer(pad=tiny.EOS)
    reward = RewardModel(tiny.classifier("gpt2"), words)
    reward.core.config.reads_eos = False  # al-train-rm made it
    load.remove_dropout(reward.core)
    encoder = load.encoder_for(reward)
    record = {"prompt": "Q: the", "finish_reasons": ["stop", "stop", "length"]}
    texts = [" a", " a much longer answer, which pads the others", ""]
    assert encoder.encode(record, texts).completions[2] == []  # and no end-of-sequence anywhere
    with torch.no_grad():
        together = reward.scores(reward.pack([encoder.encode(record, texts)]))[0]
        for text, score in zip(texts, together, strict=True):
            ids = words(record["prompt"] + text)["input_ids"]
            hidden = reward.core.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
            torch.testing.assert_close(score, reward.core.score(hidden)[0], rtol=1e-4, atol=1e-5)


def test_13_a_mean_over_tokens_is_over_the_batchs_not_a_mean_of_means():
    """One long and one short completion, one pack each: all tokens weigh the same."""
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    data = [tiny.example(4, 40), tiny.example(4, 2, seed=1)]
    recipe = tiny.recipe("x", pack_tokens=1, batch_size=2)
    assert len(list(batches.packs_of([0, 1], policy, data, recipe))) == 2
    with torch.no_grad():
        sums = [policy.logps(policy.pack([example])).item() for example in data]
    found = passes.evaluate(policy, data, Likelihood("token"), recipe, AskingEngine(policy))["loss"]
    assert found == pytest.approx(-sum(sums) / 42, rel=1e-6)
    assert found != pytest.approx(-(sums[0] / 40 + sums[1] / 2) / 2, rel=0.01)


def test_14_no_record_is_left_out(tmp_path):
    """Seven records in batches of four, in training, in evaluation, in scoring."""
    data = [tiny.example(2 + 3 * i, 5, 3 + i % 4, rewards=[1.0, 0.0]) for i in range(7)]
    recipe = tiny.recipe(tmp_path / "run", batch_size=4)
    run = Run(recipe, {"command": "test"})
    run.reads(0)
    loop.fit(RewardModel(tiny.classifier("llama"), tiny.tokenizer()), data, Ranking(), recipe, run)
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert sum(entry["tokens"] for entry in lines) == sum(example.length for example in data)
    reward = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    figures = passes.evaluate(reward, data, Ranking(), tiny.recipe("x", pack_tokens=30), AskingEngine(reward))
    with torch.no_grad():
        gaps = [(reward.scores(reward.pack([example])) @ torch.tensor([1.0, -1.0])).item() for example in data]
    assert figures["accuracy"] == pytest.approx(sum(gap > 0 for gap in gaps) / 7)
    dealt = plan(data, range(7), 40)
    assert sorted(i for one in dealt for i in one) == list(range(7)) and scoring.WINDOW > 7


@pytest.mark.slow
def test_20_texts_go_on_beyond_a_window(tmp_path):
    """Of Gemma 3's shape: of 200 tokens nothing is cut, nor is more room refused, where the window is 16."""
    folder = tiny.save(tiny.causal("gemma3", sliding_window=16), tmp_path / "window")
    record = {"prompt": "The gate is red. " * 8 + "What is red?", "chosen": " The gate.", "completions": [" A", " B"]}
    for command in (("al-sample", folder, "-m", 4), ("al-score", folder, "--logps", "--max-length", 200),
                    ("al-sft", folder, "-o", tmp_path / "sft", "--steps", 1)):
        done = run(*command, "--device", "cpu", stdin=lines(record))
        assert done.returncode == 0 and " cut" not in done.stderr, command
    done = run("al-score", folder, "--logps", "--max-length", 500, stdin=lines(record))
    assert done.returncode == 2 and f"the model's context is {tiny.CONTEXT} tokens" in done.stderr
