# into FILE COMMAND...: run the command with -o, as a whole file; what a kill left is gone on with.
# What is older than one of the files that `after` lists (the policy, the prompts, the reward model) is made anew.
into() {
  local file=$1 from part
  shift
  for from in "${after[@]}"; do
    for part in "$file" "$file.part"; do
      [ ! "$from" -nt "$part" ] || rm -f "$part" "$part.state"
    done
  done
  [ -e "$file" ] || { "$@" -o "$file.part" --resume && mv "$file.part" "$file"; }
}
