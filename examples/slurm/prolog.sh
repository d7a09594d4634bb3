#!/bin/sh
# Prolog= of slurm.conf: whether this node may take a job. Any exit code but 0 drains the node, with
# the reason "Prolog error", and requeues the job. Asks only what dvfd knows already; calls nothing
# of Slurm's, which a prolog should not.
export PATH=/usr/local/bin:/usr/bin:/bin
DVFD=dvfd
READY=ready            # ready hardware: its last test, too; ready --fail-on fail: UNKNOWN may pass
NOTES=/run/dvfd-slurm  # what health_check.sh has to know

mkdir -p "$NOTES"
why=$(timeout -k 1 8 "$DVFD" $READY 2>&1)
code=$?
if [ "$code" = 0 ]; then
    rm -f "$NOTES/refused"
    exit 0
fi
[ "$code" != 124 ] || why="$DVFD did not end within 8 s"
printf '%s\n' "$why" | head -n 1 >"$NOTES/refused"
logger -t dvfd-prolog "job $SLURM_JOB_ID refused: $why" 2>/dev/null
exit 1  # also where dvfd is missing (127): a node that nothing looks at is not known to be well
