from pathlib import Path

from demiglace.cli.reference import PAGE, passes_page
from demiglace.plugins import discover

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_the_reference_page_is_not_stale():
    assert (DOCS / PAGE).read_text(encoding="utf-8") == passes_page(discover()), "run `make reference`"


def test_a_foreign_plugin_is_not_on_the_page(site):
    site.install("acme-passes", {"acme": site.ROUND})
    registry = discover()
    assert "acme.round" in registry.passes
    assert "acme.round" not in passes_page(registry)


def test_every_option_of_every_built_in_pass_is_described():
    from demiglace.plugins.describe import described

    registry = discover()
    names = {*registry.passes, *registry.model_sources, *registry.data_sources}
    things = [one for name in names for one in described(name, registry)]
    own = [thing for thing in things if thing.plugin.distribution == "demiglace"]
    assert [thing.name for thing in own if not thing.summary or not thing.example] == []
    for thing in own:
        assert [option.name for option in thing.options if not option.meaning] == [], thing.name
