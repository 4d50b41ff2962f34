# Figures of one method's policies, its checkpoints and the last, on held-out prompts: bash examples/figures.sh METHOD
# Every policy answers the test prompts; the answers get log-probabilities under the policy and the SFT model, and rewards.
# RUN, LAST (the last policy's folder there), COMMON, TEMPERATURE, NEW_TOKENS, DRAWS, REWARD and ORACLE come from exo.mk;
# METHOD.rows in RUN is what comes out.
set -euo pipefail
method=$1 work=$RUN/$method.work
mkdir -p "$work"

. examples/into.sh
after=("$RUN/$LAST/run.json" "$RUN/test.jsonl" "$RUN/sft/run.json" "$RUN/rm/run.json")

# The policies, a line each: how many steps (online: rounds) made it, where it is.
policies() {
  local last
  case $LAST in */round-*)
    for ((last = 1; last <= ${LAST##*-}; last++)); do echo "$last $RUN/$method/round-$last"; done
    return ;;
  esac
  last=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["final"]["step"])' "$RUN/$method/run.json")
  [ "$method" != sft ] || last=0
  for folder in "$RUN/$method"/checkpoint-*; do
    [ ! -d "$folder" ] || [ "${folder##*-}" = "$last" ] || echo "${folder##*-} $folder"
  done | sort -n
  echo "$last $RUN/$method"
}

policies > "$work/policies"
while read -r step folder; do
  into "$work/answers.$step.jsonl" al-sample "$folder" "$RUN/test.jsonl" -n "$DRAWS" -t "$TEMPERATURE" -m "$NEW_TOKENS" \
    $COMMON --logps --ids
  sed "s/^{/{\"step\":$step,/" "$work/answers.$step.jsonl"  # all policies' answers together: models are loaded once
done < "$work/policies" > "$work/answers.jsonl"

into "$work/kl.jsonl" al-score "$RUN/sft" $COMMON --logps --temperature "$TEMPERATURE" --as-field ref_logps "$work/answers.jsonl"
# With the rewards in one file, as al-eval difference reads them.
into "$work/learned.jsonl" al-score "$RUN/rm" $REWARD $COMMON "$work/kl.jsonl"
[ -z "$ORACLE" ] || into "$work/oracle.jsonl" al-score $ORACLE "$work/kl.jsonl"

while read -r step _; do
  lines_of() { grep -F "{\"step\":$step," "$work/$1.jsonl"; }
  mark="--set method=$method --set step=$step"
  lines_of kl | al-eval kl $mark
  lines_of answers | al-eval text $mark
  lines_of learned | al-eval reward --as learned_reward --against "$RUN/chosen.learned.jsonl" $mark
  [ -z "$ORACLE" ] || lines_of oracle | al-eval reward --against "$RUN/chosen.oracle.jsonl" $mark
done < "$work/policies" > "$RUN/$method.rows.part"
mv "$RUN/$method.rows.part" "$RUN/$method.rows"
