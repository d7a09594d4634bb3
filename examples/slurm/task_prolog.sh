#!/bin/sh
# TaskProlog= of slurm.conf: what a job's processes get in their environment. torchrun makes up a run
# id of its own; by this one the epilog finds what belongs to the job.
echo "export DVFD_RUN=$SLURM_JOB_ID"
