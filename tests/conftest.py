from hypothesis import settings

pytest_plugins = ["_kie_cover_async_pytest", "leak_check", "pytester", "virtual_time"]

# Two busy cores make a deadline per example a matter of luck, and a red run has to be repeatable.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
# For the session of this name in noxfile.py.
settings.register_profile("thorough", deadline=None, max_examples=3000, database=None)
settings.load_profile("repeatable")
