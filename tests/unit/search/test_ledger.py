import re

import pytest
from kondense.search.ledger import Identity, Ledger, digest, identity


def test_a_name_gives_its_identity_back() -> None:
    issued = Identity(bracket=12345, rung=10, config=99999, digest="0a1b2c")
    name = issued.name("e" * 40)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert identity(name) == issued
    assert identity("b0r0c0-b1r2c3-abcdef") == Identity(1, 2, 3, "abcdef")


@pytest.mark.parametrize("name", ["", "foreign", "e-b0r0c0-xyzxyz", "e-b0r0c0-abcde", "e-b0r0-abcdef"])
def test_a_foreign_name_has_no_identity(name: str) -> None:
    assert identity(name) is None


def test_a_digest_leaves_the_resource_and_the_order_out() -> None:
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})
    assert digest({"a": "1", "epochs": "3"}, "epochs") == digest({"a": "1"}) != digest({"a": "1", "epochs": "3"})


def test_a_ledger_survives_its_text() -> None:
    ledger = Ledger()
    texts = [ledger.text()]
    for bracket in range(3):
        ledger.start_bracket()
        for config in range(9):
            ledger.add(bracket, {"x": f"{bracket}.{config}"})
            texts.append(ledger.text())
        for config in (4, 0, 7):
            ledger.promote(bracket, 1, config)
        ledger.promote(bracket, 2, 7)
        texts.append(ledger.text())
    for text in texts:
        assert Ledger(text).text() == text
    again = Ledger(ledger.text())
    assert list(map(list, again.digests)) == ledger.digests
    assert [list(map(list, promoted)) for promoted in again.promoted] == ledger.promoted
    assert again.known == ledger.known
    assert list(map(list, again.issued(1))) == [list(range(9)), [4, 0, 7], [7]]


def test_a_ledger_stays_small() -> None:
    ledger = Ledger()
    ledger.start_bracket()
    for config in range(10_000):
        ledger.add(0, {"x": str(config)})
    assert len(ledger.text()) == 40_000
    assert len(ledger.known) > 9_990  # 24 bits: about 3 of 10,000 meet by chance


@pytest.mark.parametrize("text", ["?", "abc", "abcd/x", "abcd/1,", "abcd/1", "abcd//0", "abcd;!"])
def test_a_text_that_is_no_ledger_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="issued must be a ledger of trials, but has the part"):
        Ledger(text)
