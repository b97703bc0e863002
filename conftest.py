pytest_plugins = ["quantsuite.plugin", "quantsuite.profiles"]
