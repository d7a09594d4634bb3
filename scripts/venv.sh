# Sourced by the other scripts: a virtual environment with dvfd in it, made once and kept current.
# shellcheck shell=sh
say() { echo "scripts: $*" >&2; exit 1; }
command -v python3 >/dev/null || say "python3 is missing: apt-get install python3 python3-venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || say "python3 is older than 3.11"
VENV=${DVFD_VENV:-.venv}
python3 -c 'import ensurepip, venv' 2>/dev/null || [ -x "$VENV/bin/pip" ] ||
    say "python3-venv is missing: apt-get install python3-venv"
want=$(cat pyproject.toml constraints.txt | cksum)
if [ "$(cat "$VENV/.dvfd" 2>/dev/null)" != "$want $PWD" ]; then
    echo "scripts: preparing $VENV (once; several minutes where torch must be downloaded)" >&2
    [ -x "$VENV/bin/python" ] || python3 -m venv "$VENV" || say "cannot make $VENV"
    # torch first and by the constraint: a later range would otherwise pull in a newer build.
    "$VENV/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt torch numpy &&
        "$VENV/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt \
            -e '.[torch,terminal,dev]' || say "pip failed: see above"
    echo "$want $PWD" >"$VENV/.dvfd"
fi
PATH=$PWD/$VENV/bin:$PATH
export PATH
