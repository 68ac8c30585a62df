"""The ledger: what became of every attempt, so that each is played, judged and learned from once.

An attempt goes ``issued -> executed -> scored -> trained``. It is issued under a lease: a number that grows each time
a driver sends somebody to play it. A driver whose lease is older than an attempt's was taken for dead by another: what
it brings is refused (``superseded``), and it stops. What a worker of the same driver brings twice, the first counts of.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from executors.errors import DataError
from rollouts.store import LogBrokenError, LogFullError, LogTakenError

State = Literal["issued", "executed", "scored", "trained"]
STATES: tuple[State, ...] = ("issued", "executed", "scored", "trained")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    id TEXT PRIMARY KEY,
    round TEXT NOT NULL,
    task TEXT NOT NULL,
    source TEXT NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    lease INTEGER NOT NULL,
    step INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS by_round ON attempts (round, task);
CREATE INDEX IF NOT EXISTS by_step ON attempts (step);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of one source at one task in one round; what is issued, and what an episode is of."""

    round: str
    task: str
    source: str
    number: int = 0
    """Among the attempts of that source at that task in that round."""

    @property
    def id(self) -> str:
        return f"{self.round}/{self.task}/{self.source}/{self.number}"


class Ledger:
    """The state of every attempt of a run, on disk when a method returns."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DataError: the file is no ledger, or another process holds it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            self._connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} cannot be used as a ledger: {error}") from error

    def issue(self, attempts: Sequence[Attempt]) -> int:
        """Lease attempts to somebody who is about to play them; those that were played already are left as they are.

        Returns:
            The lease, newer than any before.
        """
        with self._transaction():
            lease = 1 + (self._connection.execute("SELECT max(lease) FROM attempts").fetchone()[0] or 0)
            self._connection.executemany(
                "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, 'issued', ?, NULL) "
                "ON CONFLICT (id) DO UPDATE SET lease = excluded.lease WHERE state = 'issued'",
                [(each.id, each.round, each.task, each.source, each.number, lease) for each in attempts],
            )
        return lease

    def superseded(self, ids: Sequence[str], lease: int) -> bool:
        """Whether somebody else was sent to play one of these attempts since: what this lease brings comes too late."""
        return any(held > lease for _, held in self._rows("SELECT state, lease FROM attempts WHERE id IN ({})", ids))

    def advance(self, ids: Sequence[str], to: Literal["executed", "scored"]) -> int:
        """Move attempts on, if they have not come that far; whoever writes the log calls it afterwards.

        Returns:
            How many moved.
        """
        earlier = STATES[: STATES.index(to)]
        marks = ", ".join(f"'{state}'" for state in earlier)
        with self._transaction():
            query = f"UPDATE attempts SET state = '{to}' WHERE id = ? AND state IN ({marks})"
            return self._connection.executemany(query, [(each,) for each in ids]).rowcount

    def plan(self, steps: Mapping[int, Sequence[str]]) -> None:
        """Note which step of the run will learn from which attempts, before it does."""
        rows = [(step, each) for step, ids in steps.items() for each in ids]
        with self._transaction():
            self._connection.executemany("UPDATE attempts SET step = ? WHERE id = ? AND state = 'scored'", rows)

    def covered(self, step: int) -> int:
        """A checkpoint is on disk that has taken all steps below this one: their attempts are learned from, for good.

        Returns:
            How many that makes.
        """
        with self._transaction():
            query = "UPDATE attempts SET state = 'trained' WHERE state = 'scored' AND step < ?"
            return self._connection.execute(query, (step,)).rowcount

    def counts(self, round: str | None = None) -> dict[State, int]:
        """How many attempts stand where, in all rounds or in one."""
        query = "SELECT state, count(*) FROM attempts" + (" WHERE round = ?" if round is not None else "")
        found = dict(self._connection.execute(f"{query} GROUP BY state", () if round is None else (round,)).fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def states(self) -> Mapping[str, tuple[State, int | None]]:
        """State and training step of every attempt, by id; for ``apprentice verify``.

        Raises:
            DataError: the file is damaged.
        """
        try:
            rows = self._connection.execute("SELECT id, state, step FROM attempts").fetchall()
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path} cannot be read as a ledger: {error}") from error
        return {id: (state, step) for id, state, step in rows}

    def close(self) -> None:
        self._connection.close()

    def _transaction(self) -> "_Transaction":
        return _Transaction(self.path, self._connection)

    def _rows(self, query: str, ids: Sequence[str]) -> list[tuple]:
        rows: list[tuple] = []
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            rows += self._connection.execute(query.format(", ".join("?" * len(part))), part).fetchall()
        return rows


class _Transaction:
    """All of it or none.

    Raises:
        LogFullError: the disk is full; the ledger is as before.
        LogTakenError: another process writes the ledger.
        LogBrokenError: the disk fails.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def __enter__(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise self._failure(error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._connection.execute("COMMIT")
        except sqlite3.OperationalError as refused:
            error = refused
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.OperationalError) -> Exception:
        name = error.sqlite_errorname
        if name == "SQLITE_FULL":
            return LogFullError(
                f"the disk is full: {self._path} cannot grow; nothing is lost: free some space, then continue with "
                "--resume"
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return LogTakenError(f"{self._path} is being written by another process; wait for it, then try again")
        return LogBrokenError(f"{self._path} cannot be written ({error}); check the disk, then continue with --resume")
