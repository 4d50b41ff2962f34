# Ways of decoding, compared: bash examples/decode.sh
# Each answers the held-out prompts; the answers get rewards, of the reward model and the oracle, and figures of the text.
# RUN, ORACLE, COHERENCE (an encoder, or nothing), COMMON, DTYPE, WEIGHTS, STOP and MODELS (what there is beside the SFT
# policy and its reward model: ppo, rm-prefixes, ..., half/rm-prefixes) come from args.mk.
set -euo pipefail
work=$RUN/decoded
mkdir -p "$work" "$RUN/report"
methods=() answers=() weight='' judged=${ORACLE:+oracle}
judged=${judged:-learned}

. examples/into.sh
after=("$RUN/test.jsonl" $(printf "$RUN/%s/run.json " sft rm $MODELS))
has() { [[ " $MODELS " == *" $1 "* ]]; }

# way NAME PASSES COMMAND...: the answers of one way of decoding, and its figures. PASSES: tokens that models look at for
# each of an answer's tokens, of a model with half the layers half ones. A way's weights are the points of its line.
way() {
  local name=$1 to=$work/$1 mark="--set method=${1%-"$weight"} ${weight:+--set step=$weight} --set passes=$2"
  shift 2
  methods+=("$name=$to.rows") answers+=("$name=$to.$judged.jsonl")
  into "$to.answers.jsonl" "$@" "$RUN/test.jsonl" $COMMON ${STOP:+--stop "$STOP"} --time
  into "$to.learned.jsonl" al-score "$RUN/rm" --dtype "$DTYPE" "$to.answers.jsonl"
  [ -z "$ORACLE" ] || into "$to.oracle.jsonl" al-score $ORACLE "$to.answers.jsonl"
  {
    al-eval text "$to.answers.jsonl" $mark ${COHERENCE:+--coherence "$COHERENCE"}
    al-eval reward --as learned_reward "$to.learned.jsonl" $mark
    [ -z "$ORACLE" ] || al-eval reward "$to.oracle.jsonl" $mark
  } > "$to.rows"
}

sample="al-sample $RUN/sft --dtype $DTYPE"
dtypes="--lm-dtype $DTYPE --rm-dtype $DTYPE"
guided="al-args $RUN/sft $RUN/rm $dtypes"
way greedy 1 $sample --greedy
way top-k 1 $sample --top-k 40
way nucleus 1 $sample --top-p 0.9
way contrastive 8 $sample --contrastive 0.6 --top-k 8
way best-of-8 16 $guided --method best-of-n --best-of 8
way segment 16 $guided --method segment
for weight in $WEIGHTS; do
  way "args-greedy-$weight" 11 $guided --weight "$weight"
done
weight=''
way args-stochastic-1 11 $guided --method stochastic --weight 1
if has ppo; then
  way ppo 1 al-sample "$RUN/ppo" --dtype "$DTYPE" --greedy
  way ppo-args-greedy-1 11 al-args "$RUN/ppo" "$RUN/rm" $dtypes --weight 1
fi

# by NAME FOLDER TEXT-PASSES TOKEN-PASSES: the ways that want reward models of their own, those in FOLDER.
by() {
  for weight in $WEIGHTS; do
    ! has "$2rm-prefixes" || way "$1args-prefixes-$weight" "$3" al-args "$RUN/sft" "$RUN/$2rm-prefixes" $dtypes --weight "$weight"
    ! has "$2rm-next-token" || way "$1next-token-$weight" "$4" al-args "$RUN/sft" --method next-token -t 0 \
      --reward "$weight:$RUN/$2rm-next-token" $dtypes
    ! has "$2rm-vocabulary" || way "$1vocabulary-$weight" "$4" al-args "$RUN/sft" "$RUN/$2rm-vocabulary" $dtypes --weight "$weight"
  done
}
by "" "" 11 2
by half- half/ 6 1.5

reward=${ORACLE:+reward}
reward=${reward:-learned_reward}
columns=${ORACLE:+reward,}learned_reward,diversity,${COHERENCE:+coherence,}passes,seconds,words
cat "$work"/*.rows | al-eval frontier --cost seconds --reward "$reward" \
  --plot "$RUN/report/seconds.png" > "$RUN/report/frontier.json"
[ ! -e "$RUN/gold" ] || {
  into "$work/pairs.learned.jsonl" al-score "$RUN/rm" --dtype "$DTYPE" "$RUN/pairs.jsonl"
  into "$work/pairs.gold.jsonl" al-score $ORACLE "$RUN/pairs.jsonl"
  for who in learned gold; do al-eval rm "$work/pairs.$who.jsonl" > "$RUN/report/$who.json"; done
}
python3 examples/answers.py "${answers[@]}" > "$RUN/report/answers.md"
al-eval table "${methods[@]}" --columns "$columns" --markdown > "$RUN/report/table.part"
mv "$RUN/report/table.part" "$RUN/report/table.md"  # last: it says that all are there
