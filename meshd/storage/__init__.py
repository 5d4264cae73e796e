"""What survives a power cut: the database, and the head of its journal."""

from meshd.storage._store import HISTORY_ROWS_MAX, HistoryRow, Saved, SqliteStore

__all__ = ["HISTORY_ROWS_MAX", "HistoryRow", "Saved", "SqliteStore"]
