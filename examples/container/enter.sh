#!/bin/sh
# usage: enter.sh ROOT SOCKET_DIRECTORY COMMAND...
# A container without a container engine: its own users, processes, files and (no) network, and of the
# host nothing but the directory of dvfd's socket.
set -eu
exec unshare --user --map-root-user --mount --pid --fork --kill-child --net --ipc --uts sh -euc '
    root=$1 socket=$2
    shift 2
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/checkpoints"
    mount --bind "$socket" "$root/run/dvfd"
    exec chroot "$root" "$@"
' sh "$@"
