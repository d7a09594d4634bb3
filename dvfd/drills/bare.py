"""Run one of our modules in somebody else's interpreter: `PYTHON bare.py MODULE [ARGUMENT ...]`.

The job's interpreter has torch but perhaps no dvfd, and must not see the other packages of ours.
So only the package `dvfd` is made importable, by its place: this very one, also where another
version is installed there. What is run this way imports nothing
but the standard library, torch and modules of dvfd that do the same. It ends with its parent.
"""

import ctypes
import importlib.util
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Become the module named first, with the arguments after it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if sys.version_info < (3, 11):  # noqa: UP036  # it is somebody else's interpreter
        sys.exit(f"{sys.executable} is Python {sys.version.split()[0]}: dvfd needs 3.11 or newer")
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  # before all imports
    package = os.path.dirname(here)  # noqa: PTH120
    sys.path[:] = [entry for entry in sys.path if entry != here]  # our neighbours are no top level
    place = os.path.join(package, "__init__.py")  # noqa: PTH118
    spec = importlib.util.spec_from_file_location(
        "dvfd", place, submodule_search_locations=[package]
    )
    assert spec
    assert spec.loader
    sys.modules["dvfd"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
