"""The rows of a version's reference profile."""

from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.reference_rows import reference_rows
from assets.lifecycle.model.training_set import feature_column
from tests.assets.lifecycle.model.test_training_set import of_meters


def test_of_a_table_without_days_the_reference_is_all_rows():
    """Scores of rows fitted on are surer: beside the test rows alone the same table would look drifted."""
    frame, model = of_meters()
    frame = frame.assign(**{feature_column(name): 0.0 for name in features_of(model).names})
    assert len(reference_rows(None, frame, model).features) == len(frame)
