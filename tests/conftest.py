"""Settings of all tests."""

from hypothesis import settings

# A busy machine takes long over an example that is well: time limits are pytest's alone.
settings.register_profile("dvfd", deadline=None)
settings.load_profile("dvfd")
