"""The language model of multimodal folders: its numbers, what is saved of it, what has none."""

import click
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from alignlib.models import load
from alignlib.models.text_part import find_text_part
from helpers import tiny
from helpers.commands import one_line, run
from helpers.plain import plain_logps

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
SEEING = {**SMALL, "image_size": 28, "patch_size": 14}
EXAMPLE = tiny.example(20, 30, 9)


def whole(kind):
    """A random multimodal model."""
    text = {"gemma3": tiny.config("gemma3", sliding_window=8), "mistral3": tiny.config("mistral", sliding_window=8),
            "qwen2_vl": tiny.config("qwen2")}.get(kind, tiny.config("llama"))
    if kind == "qwen2_vl":
        text = text.to_dict() | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
        sight = {"depth": 1, "embed_dim": 32, "num_heads": 4, "hidden_size": 32}
    else:
        sight = SEEING | {"gemma3": {"model_type": "siglip_vision_model"}, "smolvlm": {},
                          "llava": {"model_type": "clip_vision_model"},
                          "mistral3": {"model_type": "pixtral", "head_dim": 8}}[kind]
    config = transformers.CONFIG_MAPPING[kind](text_config=text, vision_config=sight, mm_tokens_per_image=4,
                                               **{f"image_token_{name}": 5 for name in ("id", "index")})
    torch.manual_seed(0)
    return transformers.AutoModelForImageTextToText.from_config(config).eval()


@pytest.mark.slow
@pytest.mark.parametrize("kind, family", [("gemma3", "Gemma3"), ("llava", "Llama"), ("mistral3", "Mistral"),
                                          ("smolvlm", "Llama")])
def test_its_language_model_is_a_policy(kind, family, tmp_path, capsys):
    """With the whole model's numbers, beyond its window too; saved, it is an ordinary folder."""
    both = whole(kind)
    folder = tiny.save(both, tmp_path / "whole")
    with torch.no_grad():
        wanted = plain_logps(both, EXAMPLE)
        for place in ("whole", "text"):
            policy = load.load_policy(str(tmp_path / place), "cpu", "fp32")
            assert type(policy.core).__name__ == f"{family}ForCausalLM" and policy.shared
            assert not any(weight.is_meta for weight in policy.core.parameters())
            assert load.encoder_for(policy).max_length == tiny.CONTEXT
            torch.testing.assert_close(policy.logps(policy.pack([EXAMPLE]))[0], wanted, rtol=1e-6, atol=0)
            load.save(policy, tmp_path / "text")
    assert capsys.readouterr().err == "" and load.load_config(folder).architectures == [type(both).__name__]
    assert load.load_config(str(tmp_path / "text")).architectures == [f"{family}ForCausalLM"]


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["all-linear", r".*language_model.*\.(q_proj|up_proj)"])
@pytest.mark.parametrize("kind", ["gemma3", "llava"])
def test_adapters_over_the_whole_model(kind, targets, tmp_path, capsys):
    """As others train them: over all that it reads, or the language model alone, under names of now and of before."""
    import peft

    folder = tiny.save(whole(kind), tmp_path / "whole")
    adapted = peft.get_peft_model(whole(kind), peft.LoraConfig(r=2, lora_alpha=16, target_modules=targets,
                                                               task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.peft_config["default"].base_model_name_or_path = folder
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        wanted = plain_logps(adapted.merge_and_unload().eval(), EXAMPLE)
        assert (wanted - plain_logps(whole(kind), EXAMPLE)).abs().max() > 0.1
        file = tmp_path / "adapter" / "adapter_model.safetensors"
        for now, before in (("", ""), ("_model.model.model.language_model.", "_model.model.language_model.model.")):
            save_file({name.replace(now, before): weight for name, weight in load_file(file).items()}, file)
            policy = load.load_policy(str(tmp_path / "adapter"), "cpu", "fp32")
            torch.testing.assert_close(policy.logps(policy.pack([EXAMPLE]))[0], wanted, rtol=1e-5, atol=0)
    on = load.load_policy(str(tmp_path / "adapter"), "cpu", "fp32", train=True, go_on=True)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name, weight in on.core.named_parameters()
            if weight.requires_grad} >= {"q_proj", "up_proj"}
    assert not any("vision" in name for name, _ in on.core.named_parameters()) and capsys.readouterr().err == ""


@pytest.mark.parametrize("change, message", [
    (lambda weights: weights.pop(min(weights)), "the checkpoint lacks "),
    (lambda weights: weights.update(more=torch.zeros(3)), "the checkpoint has 1 weights that a "),
])
def test_every_weight_of_the_whole_has_its_place(change, message, tmp_path):
    folder = tiny.save(whole("gemma3"), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(click.UsageError, match=message):
        load.load_policy(folder, "cpu", "fp32")


def test_names_that_were_never_translated(tmp_path):
    """Folders have language_model.model.layers..., as on the Hub; transformers itself has other names."""
    both = whole("gemma3")
    folder = tiny.save(both, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("language_model.model.layers.") for name in weights)
    own = {name: weight.clone() for name, weight in both.state_dict().items() if name != "lm_head.weight"}
    assert not own.keys() & weights.keys()
    save_file(own, tmp_path / "model.safetensors", {"format": "pt"})
    policy = load.load_policy(folder, "cpu", "fp32")
    with torch.no_grad():
        torch.testing.assert_close(policy.logps(policy.pack([EXAMPLE]))[0], plain_logps(both, EXAMPLE), rtol=1e-6,
                                   atol=0)


def test_what_has_no_language_model_of_its_own_is_refused(tmp_path):
    """Qwen2-VL's text has positions in three directions; T5 writes from an encoder's states."""
    folder = tiny.save(whole("qwen2_vl"), tmp_path)
    with pytest.raises(click.UsageError, match="a Qwen2VLForConditionalGeneration, whose text part transformers has"):
        load.load_policy(folder, "cpu", "fp32")
    for name, config in (("T5", transformers.T5Config()), ("Nothing", tiny.config("gemma3"))):
        config.architectures = [f"{name}ForConditionalGeneration"]
        assert find_text_part(config) is None


@pytest.mark.slow
def test_commands_take_it(tmp_path):
    folder = tiny.save(whole("gemma3"), tmp_path / "whole")
    record = '{"prompt": "the", "chosen": " cat", "completions": [" a"]}\n'
    for command in (("al-sample", folder, "-m", 3), ("al-score", folder, "--logps"),
                    ("al-sft", folder, "--steps", 1, "-o", tmp_path / "sft")):
        done = run(*command, stdin=record)
        assert done.returncode == 0, (command, done.stderr)
    done = run("al-score", tiny.save(whole("qwen2_vl"), tmp_path / "other"), "--logps", stdin=record)
    assert done.returncode == 2 and "not a causal language model" in one_line(done.stderr)


@pytest.mark.slow
def test_a_reward_model_begins_with_the_text_part_as_a_folder(tmp_path):
    """Of the whole there is none; the line says how to get the part."""
    record = '{"prompt": "the", "chosen": " cat", "rejected": " a"}\n' * 2
    for kind in ("gemma3", "llava"):
        folder, part = tiny.save(whole(kind), tmp_path / kind), tmp_path / f"{kind}-text"
        for more in ((), ("--lora", 2), ("--plan",)):
            done = run("al-train-rm", folder, "-o", tmp_path / "rm", "--steps", 1, *more, stdin=record)
            assert done.returncode == 2 and f"al-data model {folder} DIR" in one_line(done.stderr), done.stderr
        assert run("al-data", "model", folder, part).returncode == 0
        done = run("al-train-rm", part, "-o", tmp_path / f"{kind}-rm", "--steps", 1, stdin=record)
        assert done.returncode == 0, done.stderr
        assert load.is_classifier(str(tmp_path / f"{kind}-rm"))
    done = run("al-train-rm", tiny.save(whole("qwen2_vl"), tmp_path / "other"), "-o", tmp_path / "rm", stdin=record)
    assert done.returncode == 2 and "no sequence classifier of a qwen2_vl's kind" in one_line(done.stderr)
