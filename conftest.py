pytest_plugins = ["quantsuite.plugin"]
