# Ways of decoding, compared: bash examples/decode.sh
# Each answers the held-out prompts; the answers get rewards, of the reward model and the oracle, and figures of the text.
# RUN, ORACLE, COHERENCE (an encoder, or nothing), COMMON, DTYPE, WEIGHTS and STOP come from args.mk.
set -euo pipefail
work=$RUN/decoded
mkdir -p "$work" "$RUN/report"
methods=()

. examples/into.sh
after=("$RUN/test.jsonl" "$RUN/sft/run.json" "$RUN/rm/run.json" "$RUN/ppo/run.json")

# way NAME COMMAND...: the answers of one way of decoding, and its figures.
way() {
  local name=$1 to=$work/$1 mark="--set method=$1"
  shift
  methods+=("$name=$to.rows")
  into "$to.answers.jsonl" "$@" "$RUN/test.jsonl" $COMMON ${STOP:+--stop "$STOP"} --time
  into "$to.learned.jsonl" al-score "$RUN/rm" --dtype "$DTYPE" "$to.answers.jsonl"
  [ -z "$ORACLE" ] || into "$to.oracle.jsonl" al-score "$ORACLE" "$to.answers.jsonl"
  {
    al-eval text "$to.answers.jsonl" $mark ${COHERENCE:+--coherence "$COHERENCE"}
    al-eval reward --as learned_reward "$to.learned.jsonl" $mark
    [ -z "$ORACLE" ] || al-eval reward "$to.oracle.jsonl" $mark
  } > "$to.rows"
}

sample="al-sample $RUN/sft --dtype $DTYPE"
guided="al-args $RUN/sft $RUN/rm --lm-dtype $DTYPE --rm-dtype $DTYPE"
way greedy $sample --greedy
way top-k $sample --top-k 40
way nucleus $sample --top-p 0.9
way contrastive $sample --contrastive 0.6 --top-k 8
way best-of-8 $guided --method best-of-n --best-of 8
way segment $guided --method segment
for weight in $WEIGHTS; do
  way "args-greedy-$weight" $guided --weight "$weight"
done
way args-stochastic-1 $guided --method stochastic --weight 1
way ppo al-sample "$RUN/ppo" --dtype "$DTYPE" --greedy
way ppo-args-greedy-1 al-args "$RUN/ppo" "$RUN/rm" --lm-dtype "$DTYPE" --rm-dtype "$DTYPE" --weight 1

reward=${ORACLE:+reward}
reward=${reward:-learned_reward}
columns=${ORACLE:+reward,}learned_reward,diversity,${COHERENCE:+coherence,}seconds,words
cat "$work"/*.rows | al-eval frontier --cost seconds --reward "$reward" \
  --plot "$RUN/report/seconds.png" > "$RUN/report/frontier.json"
al-eval table "${methods[@]}" --columns "$columns" --markdown > "$RUN/report/table.part"
mv "$RUN/report/table.part" "$RUN/report/table.md"  # last: it says that all are there
