# Figures of one method's policy and its checkpoints on held-out prompts: bash examples/figures.sh METHOD
# Each policy answers the test prompts; the answers get log-probabilities under the policy and the SFT model, and rewards.
# RUN, TEMPERATURE, NEW_TOKENS, DRAWS, REWARD and ORACLE come from exo.mk. A finished row is not made again.
set -euo pipefail
method=$1

# The chosen answers' rewards, to win against.
chosen() { # SCORER NAME
  [ -s "$RUN/chosen.$2.jsonl" ] || { al-pref2rw "$RUN/test.jsonl" | al-score $1 -o "$RUN/chosen.$2.$$" \
    && mv "$RUN/chosen.$2.$$" "$RUN/chosen.$2.jsonl"; }
}

figures() { # FOLDER STEP
  local row=$RUN/$method.$(printf %06d "$2").row said=$RUN/$method.$2.jsonl mark="--set method=$method --set step=$2"
  [ ! -s "$row" ] || return 0
  al-sample "$1" "$RUN/test.jsonl" -n "$DRAWS" -t "$TEMPERATURE" -m "$NEW_TOKENS" --logps --ids -o "$said.part" --resume
  al-score "$RUN/sft" --logps --temperature "$TEMPERATURE" --as-field ref_logps "$said.part" -o "$said" --resume
  {
    al-eval kl "$said" $mark
    al-eval text "$said" $mark
    al-score "$RUN/rm" $REWARD "$said" | al-eval reward --as learned_reward --against "$RUN/chosen.learned.jsonl" $mark
    [ -z "$ORACLE" ] || al-score "$ORACLE" "$said" | al-eval reward --against "$RUN/chosen.oracle.jsonl" $mark
  } > "$row.part"
  mv "$row.part" "$row"
}

chosen "$RUN/rm $REWARD" learned
[ -z "$ORACLE" ] || chosen "$ORACLE" oracle
last=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["final"]["step"])' "$RUN/$method/run.json")
if [ "$method" != sft ]; then
  for folder in "$RUN/$method"/checkpoint-*; do
    step=${folder##*-}
    [ "$step" = "$last" ] || figures "$folder" "$step"
  done
  figures "$RUN/$method" "$last"
else
  figures "$RUN/sft" 0
fi
