"""A run told to a person."""

from demiglace.report.summary import print_summary

__all__ = ["print_summary"]
