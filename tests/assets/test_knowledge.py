"""What a declaration may say about answers."""

from dataclasses import replace

import pytest

from assets.declaration import DeclarationError
from assets.knowledge import Answers, Documents, Unknown, slots_in, texts_of
from assets.lifecycle.factory import lifecycle_assets
from assets.lifecycle.jobs import assets_of_jobs
from tests.declarations.helpdesk import helpdesk
from tests.declarations.readings import plain, stream

ANSWERS = Answers(knowledge=Documents("somewhere"))


def test_a_model_with_answers_has_their_assets_and_another_has_none():
    names = {key.path[-1] for asset in lifecycle_assets(helpdesk("somewhere")) for key in asset.keys}
    assert {"knowledge", "answering", "unknown_intents"} <= names
    assert not {"knowledge", "answering", "unknown_intents"} & {
        key.path[-1] for asset in lifecycle_assets(stream()) for key in asset.keys
    }
    assert "knowledge" not in assets_of_jobs(stream())
    assert "unknown_intents" in assets_of_jobs(helpdesk("somewhere"))["daily"]
    unwatched = helpdesk("somewhere", answers=replace(ANSWERS, unknown=None))
    assert "unknown_intents" not in assets_of_jobs(unwatched)["daily"]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (replace(ANSWERS, text="intent"), "name a text column of the contract: text"),
        (replace(ANSWERS, knowledge=Documents("")), "give a folder of the project"),
        (replace(ANSWERS, templates={"weather": "It is sunny."}), "name a class of the target: card, cash, fee, loan"),
        (replace(ANSWERS, templates={"card": "For {name}."}), "use one of the slots amount, card, country"),
        (replace(ANSWERS, templates={"card": "For {amount."}), "close its braces"),
        (replace(ANSWERS, wrong_cost=0), "give a number above 0"),
        (replace(ANSWERS, least_recall=2), "give a share from 0 to 1"),
        (replace(ANSWERS, passages=0), "give at least 1"),
        (replace(ANSWERS, unknown=Unknown(alpha=0)), "give a probability above 0"),
        (replace(ANSWERS, unknown=Unknown(min_effect=1)), "give a share from 0 to 1"),
        (replace(ANSWERS, unknown=Unknown(page_after=0)), "give a whole number of at least 1"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(answers, said):
    with pytest.raises(DeclarationError) as refused:
        helpdesk("somewhere", answers=answers)
    assert said in str(refused.value)


def test_answers_need_intents():
    with pytest.raises(DeclarationError, match="the target has to be the intent"):
        plain(answers=ANSWERS)


def test_an_awaited_class_has_to_be_declared():
    training = replace(helpdesk("somewhere").training, awaited=("weather",))
    with pytest.raises(DeclarationError, match="name classes of the target"):
        helpdesk("somewhere", training=training)


def test_text_columns_and_slots():
    assert texts_of(helpdesk("somewhere")) == ["text"]
    assert slots_in("{amount} for {card}, {{not}}") == {"amount", "card"}
