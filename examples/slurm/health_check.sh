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
drain() { set_state State=DRAIN "Reason=$OURS$1" && rm -f "$NOTES/refused"; }

# What prolog.sh noted explains the drain that follows it and no later one. Kept for some seconds:
# that drain may be under way.
outdate() { find "$NOTES/refused" -mmin +0.2 -delete 2>/dev/null || :; }

drain_or_resume() {
    why=$(timeout -k 1 8 "$DVFD" $READY 2>&1)
    code=$?
    [ "$code" != 124 ] || why="$DVFD did not end within 8 s"
    now=$(timeout -k 1 10 sinfo -aho '%T %E' -n "$node") || return 1
    [ -n "$now" ] || return 0  # no node of Slurm's yet: newer slurmds register only after a 0
    now=$(printf '%s\n' "$now" | head -n 1)  # a line for each partition
    state=${now%% *} reason=${now#* }
    case $state/$reason in
    drain*/"$OURS"*)  # and so whatever a prolog says after that: Slurm keeps the first reason
        rm -f "$NOTES/refused"
        [ "$code" != 0 ] || set_state State=RESUME ;;
    drain*/"Prolog error")  # Slurm's words for any prolog; prolog.sh left a note if it was that one
        [ ! -e "$NOTES/refused" ] || drain "$(cat "$NOTES/refused")" ;;
    drain* | down* | fail*)  # somebody else's
        outdate ;;
    *)
        if [ "$code" = 0 ]; then outdate; else drain "$(printf '%s\n' "$why" | head -n 1)"; fi ;;
    esac
}

drain_or_resume
ended=$?

for job in "$NOTES"/over/*; do  # of the epilog: jobs that ended while dvfd was away
    [ -e "$job" ] || break
    timeout -k 1 5 "$DVFD" job forget --run "${job##*/}" >/dev/null 2>&1 || break
    rm -f "$job"
done
exit "$ended"
