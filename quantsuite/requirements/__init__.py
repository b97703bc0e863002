"""Requirements as data: rows of a TOML file that say what a model must not lose, each a test with a name."""
