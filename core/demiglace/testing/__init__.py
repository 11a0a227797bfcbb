"""What the tests of a plugin's author use: one conformance class for each kind of pass."""

from demiglace.testing.editors import EditorConformance

__all__ = ["EditorConformance"]
