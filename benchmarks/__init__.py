"""Measurements that the docs quote: ratios taken side by side in one run, as medians."""
