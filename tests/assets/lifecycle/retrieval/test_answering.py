"""Thresholds by cost, and the checks of a version's answers."""

import numpy as np
import pytest

from assets.knowledge import Answers, Documents
from assets.lifecycle.retrieval.answering import Curve, _abstention, _Asked, _grounded, cost_at, is_unknown, nearest_of
from assets.lifecycle.retrieval.curve import curve_picture
from assets.lifecycle.retrieval.reply import Limits

ANSWERS = Answers(knowledge=Documents("somewhere"), wrong_cost=5, handover_cost=1)


def questions(n: int = 2_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Certainties that are calibrated, and whether the answers are right."""
    rng = np.random.default_rng(seed)
    certainty = rng.uniform(0.3, 1, n)
    return certainty, rng.random(n) < certainty


def test_the_threshold_is_where_a_wrong_answer_costs_what_a_hand_over_does():
    # With calibrated certainties, answering costs 5 (1 - p) and handing over 1: the cheapest threshold is p = .8.
    chosen = Curve.of(*questions(20_000), ANSWERS).cheapest
    assert chosen == pytest.approx(0.8, abs=0.03)


def test_the_curve_ends_with_handing_over_everything():
    curve = Curve.of(*questions(), ANSWERS)
    assert curve.answered[0] == 1
    assert (curve.answered[-1], curve.wrong[-1], curve.cost[-1]) == (0, 0, 1)
    assert curve_picture(curve, curve.cheapest, ANSWERS).startswith(b"\x89PNG")


def test_dearer_mistakes_answer_less():
    certainty, right = questions()
    dear = Answers(knowledge=Documents("somewhere"), wrong_cost=50)
    assert Curve.of(certainty, right, dear).cheapest > Curve.of(certainty, right, ANSWERS).cheapest


def later(certainty: np.ndarray, right: np.ndarray) -> _Asked:
    return _Asked(["text"] * len(right), ["card"] * len(right), certainty, right, np.zeros(len(right), dtype=int))


def test_answers_that_cost_less_than_people_pass():
    certainty, right = questions()
    check_result = _abstention(
        cost_at(certainty, right, 0.8, ANSWERS), ANSWERS, later(certainty, right), Limits(0.8, 0)
    )
    assert check_result.passed
    assert "handing over all 1.000" in check_result.description


@pytest.mark.closes("answering", "abstention")
def test_answers_that_cost_more_than_people_are_told():
    certainty, right = questions()
    wrong = np.zeros(len(right), dtype=bool)
    check_result = _abstention(
        cost_at(certainty, wrong, 0.8, ANSWERS), ANSWERS, later(certainty, wrong), Limits(0.8, 0)
    )
    assert not check_result.passed
    assert "hand over everything, or train a better version" in check_result.description


@pytest.mark.closes("answering", "grounded")
def test_a_sentence_without_a_source_is_told():
    check_result = _grounded(["The bank pays you a million."], 20)
    assert not check_result.passed
    assert "The bank pays you a million." in check_result.description
    assert _grounded([], 20).passed


def test_unknown_is_uncertain_and_far():
    found = is_unknown(np.array([0.2, 0.2, 0.9, 0.9]), np.array([0.1, 0.9, 0.1, 0.9]), uncertain=0.5, far=0.5)
    assert found.tolist() == [True, False, False, False]


def test_of_thresholds_that_cost_the_same_the_highest_is_chosen():
    alike = Answers(knowledge=Documents("somewhere"), wrong_cost=1, handover_cost=1)
    curve = Curve.of(np.array([0.2, 0.8]), np.array([False, True]), alike)
    assert curve.cost.tolist() == [0.5, 0.5, 1.0]
    assert curve.cheapest == 0.8


def test_the_cost_of_a_threshold_counts_wrong_answers_and_hand_overs():
    certainty, right = np.array([0.2, 0.8, 0.8, 0.9]), np.array([False, True, False, True])
    assert cost_at(certainty, right, 0.8, ANSWERS) == (1 + 0 + 5 + 0) / 4, "a certainty that reaches it is answered"
    assert cost_at(certainty, right, 0.95, ANSWERS) == 1
    curve = Curve.of(certainty, right, ANSWERS)
    assert curve.thresholds[:3].tolist() == [0.2, 0.8, 0.9]
    assert curve.answered.tolist() == [1, 0.75, 0.25, 0]
    assert curve.wrong.tolist() == [0.5, 0.25, 0, 0]
    assert curve.cost.tolist() == [2.5, 1.5, 0.75, 1]


def test_nearest_is_the_most_similar_known_question():
    vectors, known = np.eye(3)[:2], np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    assert nearest_of(vectors, known).tolist() == [0.6, 0.8]
    assert nearest_of(np.zeros((0, 3)), known).tolist() == []


def test_unknown_needs_both_signs_to_be_below_their_limits():
    at_the_limit = np.array([0.5, 0.4, 0.5, 0.4]), np.array([0.3, 0.5, 0.5, 0.4])
    assert is_unknown(*at_the_limit, uncertain=0.5, far=0.5).tolist() == [False, False, False, True]


def test_answers_that_cost_exactly_as_much_as_people_are_told():
    certainty, right = np.array([0.9]), np.array([True])
    check_result = _abstention(ANSWERS.handover_cost, ANSWERS, later(certainty, right), Limits(0.9, 0))
    assert not check_result.passed
    assert check_result.metadata["answered"] == 1
