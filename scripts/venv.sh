# Sourced by the other scripts: a virtual environment with dvfd in it, made once and kept current.
# shellcheck shell=sh
say() { echo "scripts: $*" >&2; exit 1; }
command -v python3 >/dev/null || say "python3 is missing: apt-get install python3 python3-venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    say "python3 is $(python3 -V | cut -d' ' -f2), wanted 3.11 or newer"
VENV=${DVFD_VENV:-.venv}
case "$VENV" in /*) ;; *) VENV=$PWD/$VENV ;; esac
python3 -c 'import ensurepip, venv' 2>/dev/null || [ -x "$VENV/bin/pip" ] ||
    say "python3-venv is missing: apt-get install python3-venv"
want="$(cat pyproject.toml constraints.txt | cksum) $PWD"
current() { [ "$(cat "$VENV/.dvfd" 2>/dev/null)" = "$want" ]; }
install() { "$VENV/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt "$@"; }
if ! current; then
    mkdir -p "$VENV"
    exec 9>"$VENV/.lock"
    ! command -v flock >/dev/null || flock -n 9 ||
        { echo "scripts: another script prepares $VENV: waiting" >&2 && flock 9; }
fi
if ! current; then
    echo "scripts: preparing $VENV, once; torch is large: minutes on a slow line" >&2
    # pip comes last: without it the environment was left half made.
    [ -x "$VENV/bin/pip" ] || python3 -m venv "$VENV" || say "cannot make $VENV"
    # torch first and by the constraint: a later range would otherwise pull in a newer build.
    echo "scripts: 1 of 2: torch and numpy" >&2
    install torch numpy || say "pip failed, see above; run this again once that is mended"
    echo "scripts: 2 of 2: dvfd and what it is built and tested with" >&2
    install -e '.[torch,terminal,frameworks,dev]' || say "pip failed, see above; run this again"
    echo "$want" >"$VENV/.dvfd"
fi
exec 9>&-
PATH=$VENV/bin:$PATH
export PATH
