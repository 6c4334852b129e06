"""The words of the simulated questions: phrases by intent, with slots, and what people write around them.

Belongs here: texts. Does not belong here: how many questions there are, and when (``simulator.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from assets.models.support.tables import SCAM

PHRASES: dict[str, tuple[str, ...]] = {
    "card_arrival": (
        "when will my new card arrive", "my card still has not come in the post", "I ordered a card {days} days ago",
        "how long does delivery of a card to {country} take", "can I track the card you sent me",
        "has my card been shipped yet", "the new card is not in my letterbox", "waiting for my card since {days} days",
    ),
    "lost_card": (
        "I lost my card", "my wallet with the card ending {card} was stolen", "please block my card ending {card}",
        "someone took my card in {country}", "I cannot find my card anywhere", "left my bank card in a taxi",
        "how do I freeze a card that is gone", "my purse was stolen, what about the card",
    ),
    "card_declined": (
        "my card was declined at {merchant}", "payment of {amount} was refused", "why does my card not work",
        "the terminal says card declined", "my card is not accepted in {country}",
        "I could not pay {amount} at {merchant} today", "shop refused my card although I have money",
        "card payment failed twice",
    ),
    "change_pin": (
        "how do I change my PIN", "I forgot my PIN", "I want a different PIN for my card",
        "where can I set a new PIN", "my PIN is blocked after three tries", "can I choose the PIN in the app",
        "I entered the wrong PIN too often", "need a new PIN for card ending {card}",
    ),
    "transfer_pending": (
        "my transfer of {amount} is still pending", "the money I sent has not arrived",
        "how long does a transfer to {country} take", "I sent {amount} {days} days ago and it is not there",
        "why is my transfer not finished", "the recipient did not get my transfer",
        "status of my bank transfer", "transfer to {country} stuck",
    ),
    "transfer_fee": (
        "what does a transfer to {country} cost", "why was I charged {amount} for a transfer",
        "is there a fee for sending money", "how much do you take for international transfers",
        "transfer charges seem too high", "fee for an instant transfer",
        "you took {amount} when I sent money abroad", "are transfers free of charge",
    ),
    "exchange_rate": (
        "what exchange rate do you use", "the exchange rate for my payment in {country} is wrong",
        "which rate applies to dollars", "how do you convert foreign currency", "your rate is worse than the market",
        "rate for changing {amount} into euros", "when is the exchange rate fixed",
        "why was my payment in {country} converted so badly",
    ),
    "cash_fee": (
        "what does it cost to withdraw cash", "I was charged {amount} at a cash machine",
        "fee for cash withdrawal in {country}", "is getting cash abroad free", "the ATM took a fee",
        "how many free cash withdrawals do I have", "charged for taking out {amount} in cash",
        "why do I pay at an ATM",
    ),
    "refund": (
        "{merchant} should refund me {amount}", "where is my refund", "how do I get my money back from {merchant}",
        "I returned the goods but the refund is missing", "refund of {amount} not on my account",
        "how long does a refund take", "the shop says it sent my money back",
        "I want to request a refund for {amount}",
    ),
    "direct_debit": (
        "there is a direct debit that I do not know", "how do I cancel a direct debit",
        "{merchant} debited {amount} without asking", "stop the direct debit of {merchant}",
        "a standing debit was taken twice", "I want to return a direct debit of {amount}",
        "direct debit mandate for {merchant}", "reverse the debit from last week",
    ),
    "top_up": (
        "how can I top up my account", "my top up of {amount} failed", "top up by card does not work",
        "I topped up {amount} but the balance is the same", "which cards can I use to top up",
        "is there a limit for topping up", "automatic top up", "top up was reverted",
    ),
    "close_account": (
        "I want to close my account", "how do I cancel my account", "please delete my account and my data",
        "how do I leave your bank", "close account with a balance of {amount}", "terminate my contract",
        "what happens to my money when I close the account", "I no longer need this account",
    ),
    SCAM: (
        "I got a text message that says my account is suspended, is it from you",
        "someone called and pretended to be your security department", "is this link in the SMS really yours",
        "a suspicious email asks me for my password", "received a message about a parcel with a strange link",
        "I clicked on a link in a fake message", "a caller wanted me to install remote software",
        "phishing text pretending to be the bank asks for {amount}",
    ),
}  # fmt: skip
"""Phrases by intent."""
_COMMON = {"lost_card": 1.4, "card_declined": 1.6, "transfer_pending": 1.6, "close_account": 0.6, "top_up": 0.8}
_BEFORE = ("", "", "", "Hi, ", "Hello, ", "Good morning, ", "Hey there, ", "Dear team, ", "Sorry to bother you, but ")
_AFTER = ("", "", "?", ".", "?", ". Please help", ". Thanks", "? Kind regards", ". It is urgent")
_SINCE = (
    "since {day}", "for {days} days now", "for the second time", "while I am travelling", "on my old phone",
    "after the last update of the app", "with my new account", "during the holidays", "as I told you on {day}",
    "before I go to {country}", "for my daughter", "for our club", "at the weekend", "every {day}", "at {hour} o'clock",
    "and my balance is {amount}", "at the {merchant} near me", "from {country}",
)  # fmt: skip
_PERSONAL = (
    ". My e-mail is {name}@example.org", ". Call me at +44 20 7946 0{digits}", ". My card is 4111 1111 1111 1111",
    ". My account is GB82 WEST 1234 5698 7654 32",
)  # fmt: skip
_SHORT = {"please": "pls", "you": "u", "your": "ur", "are": "r", "because": "bc", "transfer": "trf", "account": "acc",
          "message": "msg", "text": "txt", "how do": "how 2", "what": "wat"}  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_COUNTRIES = ("France", "Spain", "Japan", "the United States", "Poland", "Brazil", "India", "Kenya")
_MERCHANTS = ("Greenleaf", "Cornershop", "Metro Mart", "Bluebird Books", "Alpine Sports")
_NAMES = ("ada", "grace", "alan", "joan", "linus")


def shares(intents: Sequence[str]) -> np.ndarray:
    """The share of each intent, ``[n]``."""
    weights = np.array([_COMMON.get(name, 1.0) for name in intents])
    return weights / weights.sum()


def question(intent: str, rng: np.random.Generator, *, short: float) -> str:
    """One question about an intent.

    Args:
        intent: a key of :data:`PHRASES`.
        rng: source of random numbers.
        short: probability that words are written in short forms.
    """
    cents = f".{rng.integers(10, 99)}" if rng.random() < 0.5 else ""
    phrase = f"{rng.choice(PHRASES[intent])} {rng.choice(_SINCE)}".format(
        day=rng.choice(_DAYS), hour=rng.integers(1, 24),
        amount=f"{rng.choice(['£', '€', '$'])}{rng.integers(2, 900)}{cents}",
        country=rng.choice(_COUNTRIES), merchant=rng.choice(_MERCHANTS), card=f"{rng.integers(1_000, 9_999)}",
        days=rng.integers(2, 21),
    )  # fmt: skip
    if rng.random() < 0.15:
        phrase = _with_a_slip(phrase, rng)
    if rng.random() < short:
        for word, form in _SHORT.items():
            phrase = phrase.replace(word, form)
    text = f"{rng.choice(_BEFORE)}{phrase}{rng.choice(_AFTER)}"
    if rng.random() < 0.04:
        text = text.rstrip("?.") + str(rng.choice(_PERSONAL)).format(
            name=rng.choice(_NAMES), digits=rng.integers(100, 999)
        )
    return text[:1].upper() + text[1:] if rng.random() < 0.6 else text.lower()


def _with_a_slip(text: str, rng: np.random.Generator) -> str:
    """Two letters are swapped, or one is missing."""
    at = int(rng.integers(1, max(2, len(text) - 2)))
    if not text[at : at + 2].isalpha():
        return text
    return text[:at] + (text[at + 1] + text[at] if rng.random() < 0.5 else text[at]) + text[at + 2 :]
