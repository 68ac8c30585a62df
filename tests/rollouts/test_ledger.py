import pytest

from executors.errors import DataError
from rollouts.ledger import Attempt, Ledger
from rollouts.store import LogFullError, LogTakenError


def attempts(name: str, count: int) -> list[Attempt]:
    return [Attempt(round="r", task=f"{name}{number}", source="s") for number in range(count)]


def test_a_full_disk_leaves_the_ledger_as_it_was_and_writable_later(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.issue(attempts("t", 3))
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogFullError, match=r"the disk is full: .*ledger\.sqlite cannot grow"):
        ledger.issue(attempts("u", 500))
    assert ledger.counts()["issued"] == 3
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    ledger.issue(attempts("u", 500))
    assert ledger.counts()["issued"] == 503


def test_a_ledger_that_another_process_writes_is_told_as_that(tmp_path):
    first, second = Ledger(tmp_path / "ledger.sqlite"), Ledger(tmp_path / "ledger.sqlite")
    second._connection.execute("PRAGMA busy_timeout = 1")
    first._connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogTakenError, match="written by another process"):
        second.issue(attempts("t", 1))
    first._connection.execute("ROLLBACK")
    assert second.issue(attempts("t", 1)) == 1


def test_a_late_comer_with_an_older_lease_is_refused(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    (attempt,) = attempts("t", 1)
    older = ledger.issue([attempt])
    newer = ledger.issue([attempt])
    assert (ledger.superseded([attempt.id], older), ledger.superseded([attempt.id], newer)) == (True, False)
    ledger.advance([attempt.id], "executed")
    assert ledger.issue([attempt]) > newer
    assert not ledger.superseded([attempt.id], newer)  # what is there already is not issued again


def test_a_damaged_ledger_is_a_data_error(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.issue(attempts("t", 500))
    ledger.close()
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    with pytest.raises(DataError, match=r"ledger\.sqlite cannot be"):
        Ledger(ledger.path).states()
