"""Settings of every unit test."""

from hypothesis import settings

# A loaded machine is no bug: what must be fast has a test of its own.
settings.register_profile("kprof", deadline=None, print_blob=True)
settings.load_profile("kprof")
