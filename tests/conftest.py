"""Settings of all tests."""

import signal

from hypothesis import settings

# A busy machine takes long over an example that is well: time limits are pytest's alone.
settings.register_profile("dvfd", deadline=None)
settings.load_profile("dvfd")

# A shell starts what runs in the background with SIGINT ignored, nohup with SIGHUP, and children
# inherit that: what a test starts must hear them all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
