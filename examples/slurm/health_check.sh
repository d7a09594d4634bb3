#!/bin/sh
# HealthCheckProgram= of slurm.conf: drain this node with dvfd's reason when it may take no job, and
# resume it when it may again, but only what this program drained: never what a person did.
# Slurm kills it after 60 s; the limits below add up to less.
export PATH=/usr/local/bin:/usr/bin:/bin
DVFD=dvfd
READY=ready
NOTES=/run/dvfd-slurm
OURS='dvfd: '          # how each reason begins that is ours

node=${SLURMD_NODENAME:-$(hostname -s)}
set_state() { timeout -k 1 10 scontrol update "NodeName=$node" "$@"; }

for job in "$NOTES"/over/*; do  # ended while dvfd was away
    [ -e "$job" ] || break
    timeout -k 1 5 "$DVFD" job forget --run "${job##*/}" >/dev/null 2>&1 || break
    rm -f "$job"
done

why=$(timeout -k 1 8 "$DVFD" $READY 2>&1)
code=$?
[ "$code" != 124 ] || why="$DVFD did not end within 8 s"
why=$(printf '%s\n' "$why" | head -n 1)
now=$(timeout -k 1 10 sinfo -aho '%T %E' -n "$node") && [ -n "$now" ] || exit 1
now=$(printf '%s\n' "$now" | head -n 1)  # one line for each partition
state=${now%% *} reason=${now#* }

case $state/$reason in
drain*/"$OURS"*)
    [ "$code" != 0 ] || set_state State=RESUME ;;
drain*/"Prolog error")  # Slurm's words for any prolog; prolog.sh left a note if it was that one
    [ -e "$NOTES/refused" ] || exit 0
    set_state State=DRAIN "Reason=$OURS$(cat "$NOTES/refused")" && rm -f "$NOTES/refused" ;;
drain* | down* | fail*) ;;  # somebody else's
*)
    [ "$code" = 0 ] || set_state State=DRAIN "Reason=$OURS$why" ;;
esac
