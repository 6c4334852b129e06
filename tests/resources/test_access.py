"""Roles: what each may do, written out, and the limit to models."""

import pytest

from resources.access import RIGHTS, ROLES, Access, AccessDenied, role_of
from resources.service_tokens import TokenError, TokenFile

MAY = {
    "scorer": {"score"},
    "reader": {"read"},
    "operator": {"score", "read", "operate"},
    "approver": {"read", "approve"},
    "admin": {"score", "read", "operate", "approve", "administer"},
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("right", RIGHTS)
def test_each_role_has_its_rights_and_no_other(role, right):
    everywhere, limited = Access("ada", role), Access("ada", role, ("fraud",))
    assert everywhere.may(right, None) == everywhere.may(right, "churn") == (right in MAY[role])
    assert limited.may(right, "fraud") == (right in MAY[role])
    assert not limited.may(right, "churn")
    assert not limited.may(right, None)


def test_what_is_refused_is_said():
    with pytest.raises(
        AccessDenied, match=r"^ada has the role reader, which may not operate; roles that may: operator, "
    ):
        Access("ada", "reader").require("operate", "fraud")
    with pytest.raises(AccessDenied, match=r"^ada is limited to fraud, churn, not sales$"):
        Access("ada", "reader", ("fraud", "churn")).require("read", "sales")
    with pytest.raises(AccessDenied, match=r"^ada is limited to fraud, so name one of them$"):
        Access("ada", "reader", ("fraud",)).require("read", None)
    Access("ada", "reader", ("fraud",)).require("read", "fraud")
    with pytest.raises(
        ValueError, match="there is no role 'boss'; the roles are scorer, reader, operator, approver, adm"
    ):
        role_of("boss")


@pytest.fixture
def file(tmp_path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.toml", tmp_path / "shown")


def test_roles_and_people_survive_each_change_of_a_token(file):
    file.create("nightly", role="reader", models=["fraud", "churn"])
    people = '\n[people."ann.b@x"]\nrole = "approver"\nmodels = ["fraud"]\n[people.root]\nrole = "admin"\n'
    file.path.write_text(file.path.read_text() + people)
    wanted = {"ann.b@x": Access("ann.b@x", "approver", ("fraud",)), "root": Access("root", "admin")}
    file.create("batch")
    file.rotate("nightly")
    assert file.people() == wanted
    file.revoke("batch")
    assert file.people() == wanted
    assert file.read()["nightly"].access == Access("nightly", "reader", ("churn", "fraud"))


def test_a_token_of_an_earlier_release_may_score(file):
    file.path.write_text(f"[tokens.a]\nhash = 'sha256:{'0' * 64}'\ncreated = 2026-01-01T00:00:00Z\n")
    assert file.read()["a"].access == Access("a", "scorer")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[tokens.a]\nrole = 'boss'", "role of [tokens.a]: there is no role 'boss'; the roles are"),
        ("[tokens.a]\nmodels = []", "models of [tokens.a] is not a list of names"),
        ("[tokens.a]\nmodels = 'fraud'", "models of [tokens.a] is not a list of names"),
        ("[people.a]\nrole = 'boss'", "role of [people.a]: there is no role 'boss'"),
        ("[people.a]\nmodels = ['fraud']", "[people.a] is not a user name with role"),
        ("[people.a]\nrole = 'admin'\nword = 'x'", "[people.a] is not a user name with role"),
        ("[people.'']\nrole = 'admin'", "[people.] is not a user name with role"),
        ("people = 3", "people is not a table"),
    ],
)
def test_a_wrong_role_is_named(file, content, said):
    if content.startswith("[tokens.a]"):
        content += f"\nhash = 'sha256:{'0' * 64}'\ncreated = 2026-01-01T00:00:00Z"
    file.path.write_text(content)
    with pytest.raises(TokenError) as refused:
        file.people()
    assert said in str(refused.value)
