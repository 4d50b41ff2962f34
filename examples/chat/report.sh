# Figures before and after, and the answers side by side: RUN=folder bash examples/chat/report.sh
set -euo pipefail
mkdir -p "$RUN/report"
al-eval rm "$RUN/judged.jsonl" > "$RUN/report/rm.json"
for when in before after; do
  {
    al-eval reward "$RUN/$when.scored.jsonl" --against "$RUN/before.scored.jsonl" --set method=$when
    al-eval kl "$RUN/$when.scored.jsonl" --set method=$when
    al-eval text "$RUN/$when.scored.jsonl" --set method=$when
  } > "$RUN/$when.rows"
done
python3 examples/answers.py before="$RUN/before.scored.jsonl" after="$RUN/after.scored.jsonl" > "$RUN/report/answers.md"
al-eval table before="$RUN/before.rows" after="$RUN/after.rows" --columns reward,winrate,kl,words --markdown > "$RUN/report/table.part"
mv "$RUN/report/table.part" "$RUN/report/table.md"  # last: it says that all are there
