"""Property tests of the core: no deadline, since a machine may be busy with other things."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
