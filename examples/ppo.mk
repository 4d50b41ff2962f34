# On-policy training, for the experiments that compare with it: al-train-ppo from the SFT policy.

# Prompts of a rollout, with four answers each; how the policy learns from them.
toy.a-rollout := 16
smoke.a-rollout := 4
data.a-rollout := 16
real.a-rollout := 16
paper.a-rollout := 16
toy.on-policy := --lr 3e-4 --batch-size 64 --kl-coef 0.2
smoke.on-policy := --lr 1e-3 --batch-size 8
data.on-policy := --lr 3e-4 --batch-size 64
real.on-policy := --lora 16 --lr 5e-4 --warmup 3 --schedule constant --batch-size 32 --pack-tokens 2048 --kl-coef 0.05 --save-every 5
# DeepSpeed-Chat's, as ARGS uses it.
paper.on-policy := --lr 9.65e-6 --clip-reward 5 --batch-size 64
paper.critic := --critic-lr 5e-6

ON-POLICY := ppo rloo grpo

# $(call on-policy,NAME,METHOD,REWARD): trains the SFT policy on its own answers; prompts and -o are to follow.
on-policy = al-train-ppo $($(1).run)/sft --method $(2) --reward $(3) -n 4 --prompts $(call setting,$(1),a-rollout) \
  --temperature $(call setting,$(1),temperature) --max-new-tokens $(call setting,$(1),new-tokens) $(call common,$(1)) \
  $(call setting,$(1),on-policy) $(if $(filter ppo,$(2)),$(call setting,$(1),critic)) --resume --seed $(SEED)
