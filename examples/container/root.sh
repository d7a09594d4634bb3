#!/bin/sh
# usage: root.sh PYTHON REPORTER DIRECTORY
# Lays out what a container needs to run job.py: Python, the libraries that it loads, one file of dvfd.
set -eu
here=$(dirname "$(readlink -f "$0")")
python=$1 reporter=$2 root=$3

real=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
mkdir -p "$root/bin" "$root/job" "$root/checkpoints" "$root/proc" "$root/run/dvfd" "$root/tmp" \
    "$root/dev" "$root/sys" "$root/etc" "$root$(dirname "$real")" "$root$library"
cp "$real" "$root$real"
ln -sf "$real" "$root/bin/python"
cp "$library"/*.py "$root$library"
for package in collections encodings importlib json lib-dynload re urllib; do
    if [ -d "$library/$package" ]; then cp -R "$library/$package" "$root$library"; fi
done
ldd "$real" "$library"/lib-dynload/*.so 2>/dev/null | grep -v ':$' | grep -o '/[^ )]*' | sort -u |
    while read -r file; do
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
    done
cp "$here/job.py" "$root/job/job.py"
cp "$reporter" "$root/job/dvfd_reporter.py"
