#!/bin/sh
# Epilog= of slurm.conf: the job is over here, whatever became of it, so nothing of it is expected any
# more. Always ends with 0: anything else would drain the node for dvfd's sake.
export PATH=/usr/local/bin:/usr/bin:/bin
DVFD=dvfd
NOTES=/run/dvfd-slurm

# Kept until dvfd has heard of it: it may be away at this moment. health_check.sh tries again.
mkdir -p "$NOTES/over" && : >"$NOTES/over/$SLURM_JOB_ID"
timeout -k 1 8 "$DVFD" job forget --run "$SLURM_JOB_ID" >/dev/null 2>&1 &&
    rm -f "$NOTES/over/$SLURM_JOB_ID"
exit 0
