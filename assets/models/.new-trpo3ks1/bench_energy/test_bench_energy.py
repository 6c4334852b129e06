"""The rows of the bench_energy table meet their contract, and one that does not is refused with its reason."""

from assets.lifecycle.rehearsal import rehearse
from assets.models.bench_energy import model


def test_the_table_meets_its_contract():
    found = rehearse(model)
    assert found.refused_share <= model.table.max_refused, found.reasons


def test_a_value_that_cannot_be_read_is_refused_with_its_reason():
    assert set(rehearse(model, spoil={"area": "~"}).reasons) == {"area: missing or unreadable"}
