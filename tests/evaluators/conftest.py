"""A runtime of a third party, which runs packed files."""

import pytest

ACME = """
import demiglace
from demiglace.passes import Ran, RuntimeSpec

@demiglace.hookimpl
def demiglace_runtimes():
    return [RuntimeSpec("acme", (".dgz",), "acme_code:load", exporter="export.packed")]
"""
ACME_CODE = """
import demiglace
from demiglace.passes import Ran

OPENED = []

def load(path, *, threads=None, precision="fp32", options=None):
    from torch import nn

    OPENED.append((threads, precision, options))
    module = demiglace.load(path)
    module.ran = lambda: [Ran("all", "Everything", "int8")]
    return module
"""


@pytest.fixture
def acme(site):
    """A runtime of a third party, which runs packed files."""
    site.install("acme", {"acme": ACME, "acme_code": ACME_CODE}, points={"acme": "acme"})
    import acme_code

    return acme_code
