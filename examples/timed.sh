# bash examples/timed.sh FILE COMMAND...: run the command, and add the seconds of processor time that it took to FILE, a
# line each time. What a killed run took is not counted.
file=$1
shift
exec 3>&2
TIMEFORMAT='%U %S'
{ time "$@" 2>&3; } 2>> "$file"
