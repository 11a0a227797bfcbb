"""One command a module; each holds a click command named `command` that returns an exit code."""
