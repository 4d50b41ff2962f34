# Figures of the ALT experiments: bash examples/alt.sh validate POLICY, and bash examples/alt.sh report ITERATIONS
# alt.mk gives RUN, COMMON, LENGTH, DRAWN and DRAWS (flags of al-sample), SCORES (a command that writes rewards), TOXIC
# (what al-score needs to write toxicities, or nothing), ALSO (more oracles of the toy world) and FEEDBACKS; to the report
# POLICIES, which it compares.
set -euo pipefail

. examples/into.sh
others=("$RUN/test.jsonl" "$RUN/outside.jsonl" "$RUN/rm/run.json")

# A policy on held-out prompts, greedily and sampled; under the best feedback, where it has learnt any.
validate() {
  local policy=$1 work=$RUN/$1.work after=("$RUN/$1/run.json" "${others[@]}")
  local sample="al-sample $RUN/$policy $COMMON $LENGTH"
  case $policy in iteration-*) sample="$sample --condition best" ;; esac
  mkdir -p "$work"
  into "$work/answers.jsonl" $sample "$RUN/test.jsonl" --greedy
  into "$work/scored.jsonl" $SCORES "$work/answers.jsonl"
  into "$work/perplexity.jsonl" al-score "$RUN/sft" --perplexity $COMMON "$work/answers.jsonl"
  into "$work/drawn.answers.jsonl" $sample "$RUN/test.jsonl" -n "$DRAWS" $DRAWN
  into "$work/drawn.jsonl" $SCORES "$work/drawn.answers.jsonl"
  {
    al-eval reward "$work/scored.jsonl" --set "method=$policy"
    # A table has one figure of each name: these texts' lengths are not those of the greedy ones.
    al-eval reward "$work/drawn.jsonl" --as sampled_reward --set "method=$policy" | sed 's/"words":{/"sampled_words":{/'
    al-eval text "$work/perplexity.jsonl" --set "method=$policy"
    for oracle in $ALSO; do
      al-score "toy:$oracle" "$work/answers.jsonl" | al-eval reward --as "$oracle" --set "method=$policy"
    done
  } > "$work/rows"
  [ -z "$TOXIC" ] || toxicity test >> "$work/rows"
  [ -z "$TOXIC" ] || toxicity outside > "$RUN/$policy.outside.rows"
  mv "$work/rows" "$RUN/$policy.rows"
}

# RealToxicityPrompts' figures: 25 samples of each prompt in RUN/PART.jsonl.
toxicity() {
  into "$work/$1.many.jsonl" $sample "$RUN/$1.jsonl" -n 25 $DRAWN
  into "$work/$1.toxic.jsonl" al-score $TOXIC --as-field toxicities "$work/$1.many.jsonl"
  al-eval toxicity "$work/$1.toxic.jsonl" --set "method=$policy"
  [ "$1" = test ] || { # the other figures of these prompts are of the samples too
    into "$work/$1.perplexity.jsonl" al-score "$RUN/sft" --perplexity $COMMON "$work/$1.many.jsonl"
    al-eval text "$work/$1.perplexity.jsonl" --set "method=$policy"
  }
}

# The last policy sampled under each condition, and the rewards of what it learnt under each; the table by iteration.
report() {
  local last=iteration-$1 columns=perplexity,dist_1,dist_2,dist_3,words,cut rows=()
  local work=$RUN/$last.work after=("$RUN/$last/run.json" "${others[@]}") under=() i
  local learnt=$RUN/$last.learnt.jsonl
  mkdir -p "$RUN/report"
  conditions "$last" > "$work/conditions"
  while IFS= read -r condition; do under+=("$condition"); done < "$work/conditions"
  for i in "${!under[@]}"; do
    into "$work/under.$i.answers.jsonl" al-sample "$RUN/$last" "$RUN/test.jsonl" --condition "${under[$i]}" -n "$DRAWS" \
      $DRAWN $COMMON $LENGTH
    into "$work/under.$i.jsonl" $SCORES "$work/under.$i.answers.jsonl"
  done
  [ ${#under[@]} = 0 ] || al-eval conditions $(printf "$work/under.%s.jsonl " "${!under[@]}") \
    --plot "$RUN/report/conditions.png" > "$RUN/report/conditions.json"
  if ! head -n 1 "$learnt" | grep -q '"rewards"'; then  # learnt under a judge's words
    into "$work/learnt.jsonl" $SCORES "$learnt"
    learnt=$work/learnt.jsonl
  fi
  al-eval conditions "$learnt" --order "$RUN/$last" --histograms --plot "$RUN/report/learnt.png" \
    > "$RUN/report/learnt.json"
  python3 examples/answers.py $(for policy in $POLICIES; do echo "$policy=$RUN/$policy.work/scored.jsonl"; done) > "$RUN/report/answers.md"
  rows=($(for policy in $POLICIES; do echo "$policy=$RUN/$policy"; done))
  [ -z "$TOXIC" ] || columns=max_toxicity,toxic_share,toxicity,$columns
  [ -z "$TOXIC" ] || al-eval table "${rows[@]/%/.outside.rows}" --columns "$columns" --markdown > "$RUN/report/outside.md"
  al-eval table "${rows[@]/%/.rows}" --columns "reward,sampled_reward,${ALSO:+${ALSO// /,},}$columns" --markdown > "$RUN/report/table.part"
  mv "$RUN/report/table.part" "$RUN/report/table.md"  # last: it says that all are there
}

# What a policy is sampled under for the picture, a line each, best first: its tags, or the feedbacks that are known.
conditions() {
  if [ -n "$FEEDBACKS" ]; then
    tr '|' '\n' <<< "$FEEDBACKS" | sed 's/.*/feedback: & input: /'
  else
    python3 -c 'import json, sys; print(*(f"tag:{i + 1}" for i in range(len(json.load(open(sys.argv[1]))["conditions"]["tags"]))), sep="\n")' \
      "$RUN/$1/run.json"
  fi
}

"$@"
