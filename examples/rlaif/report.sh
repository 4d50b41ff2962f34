# The table and the pictures of what the judge said: bash examples/rlaif/report.sh
# RUN, ORACLE and POLICIES (TEACHER-SHARE-sft or -ai) come from experiment.mk.
set -euo pipefail
mkdir -p "$RUN/report" "$RUN/rows"
[ -z "$ORACLE" ] || al-score "$ORACLE" "$RUN/answers.jsonl" -o "$RUN/scored.jsonl"
rows=() judged=()
for policy in $POLICIES; do
  lines_of() { grep -F "{\"policy\":\"$policy\"," "$RUN/$1.jsonl"; }
  IFS=- read -r teacher share kind <<< "$policy"
  case $kind in
    sft) line="$teacher teacher" name="$teacher teacher, $share %" ;;
    ai) line="$teacher teacher + AI feedback" name="$teacher teacher, $share % + AI feedback" ;;
  esac
  lines_of judged > "$RUN/rows/$policy.jsonl"
  {
    al-eval winrate "$RUN/rows/$policy.jsonl" --set "method=$line" --set "step=$share" --set "share=$share"
    [ -z "$ORACLE" ] || lines_of scored | al-eval reward --set "method=$line" --set "step=$share"
  } > "$RUN/rows/$policy"
  rows+=("$name=$RUN/rows/$policy") judged+=("$name=$RUN/rows/$policy.jsonl")
done
al-eval frontier --cost share --reward winrate "${rows[@]/#*=/}" --plot "$RUN/report/shares.png" > "$RUN/report/shares.json"
al-eval winrate "${judged[@]}" --plot "$RUN/report/winrates.png" > "$RUN/report/winrates.json"
al-eval table "${rows[@]}" --columns "winrate,lc_winrate,${ORACLE:+reward,}chars" --markdown > "$RUN/report/table.part"
mv "$RUN/report/table.part" "$RUN/report/table.md"  # last: it says that all are there
