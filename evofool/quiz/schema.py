"""The tables of a quiz's file, and a named row for each of them."""

from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL: Final = 1
"""The version of docs/quiz.md. Answers of different protocols are never counted together."""

NAMING, CHOICE = 1, 2
"""The blocks of a session: free naming of everything, then a choice among labels."""
NOTHING_OF_THESE = -1
"""The choice of no option."""
MOST_TEXT = 200
"""Characters of a name, or of what a browser says about itself."""

_KEYS = {
    "quiz_sessions": ("id",),
    "quiz_trials": ("session", "n"),
    "quiz_answers": ("session", "n"),
    "quiz_ends": ("session",),
    "quiz_seen": ("session",),
    "quiz_codes": ("id",),
    "quiz_images": ("sha256",),
}
_APPENDED = "BEGIN SELECT RAISE(ABORT, 'rows are only appended'); END;"
TABLES = """
-- a session: one rater, or, of a page that is sent to many, the materials that each of its raters gets (kind 'page'). seed
-- decides all that is drawn at random. seen: this rater said before the first trial that they know the run's images
CREATE TABLE quiz_sessions (id TEXT PRIMARY KEY, protocol INTEGER NOT NULL, kind TEXT NOT NULL, rater TEXT NOT NULL,
                            seed INTEGER NOT NULL, began REAL NOT NULL, seen INTEGER NOT NULL, run TEXT NOT NULL,
                            page TEXT NOT NULL, agent TEXT NOT NULL, viewport TEXT NOT NULL, dpr REAL NOT NULL)
                            WITHOUT ROWID;
-- the trials of a session, all written when it begins, so that a kill changes none of them. image: images.pixel_sha256.
-- classes: those that the image was an elite of, or shows; options: the classes to choose from, in order (JSON)
CREATE TABLE quiz_trials (session TEXT NOT NULL, n INTEGER NOT NULL, block INTEGER NOT NULL, kind TEXT NOT NULL,
                          image TEXT NOT NULL, classes TEXT NOT NULL, options TEXT NOT NULL,
                          PRIMARY KEY (session, n)) WITHOUT ROWID;
-- one row for each answer, in one transaction. answer: the text of a name; chosen: the class that was chosen, -1 for none
CREATE TABLE quiz_answers (session TEXT NOT NULL, n INTEGER NOT NULL, answer TEXT NOT NULL, chosen INTEGER NOT NULL,
                           rt_ms REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (session, n)) WITHOUT ROWID;
-- the end of a session; seen: at its end the rater said, or the browser showed, that the images were known
CREATE TABLE quiz_ends (session TEXT PRIMARY KEY, at REAL NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID;
-- a session that does not count: between its beginning and its end the rater said, or the browser showed, that images were
-- known
CREATE TABLE quiz_seen (session TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
-- which classes (JSON) a text names that no rule matches, as somebody says who did not see the image; the last row counts
CREATE TABLE quiz_codes (id INTEGER PRIMARY KEY, answer TEXT NOT NULL, classes TEXT NOT NULL, coder TEXT NOT NULL,
                         at REAL NOT NULL);
-- every image that a trial shows
CREATE TABLE quiz_images (sha256 TEXT PRIMARY KEY, png BLOB NOT NULL) WITHOUT ROWID;
""" + "".join(
    f"CREATE TRIGGER {table}_{what} BEFORE {what} ON {table} {when}{_APPENDED}\n"
    for table, key in _KEYS.items()
    for what, when in (
        ("UPDATE", ""),
        ("DELETE", ""),
        # INSERT OR REPLACE deletes the row that it replaces without firing the trigger of DELETE.
        ("INSERT", f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {' AND '.join(f'{c} = NEW.{c}' for c in key)}) "),
    )
)

Text = Annotated[str, Field(max_length=MOST_TEXT)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Classes = tuple[Annotated[int, Field(ge=0)], ...]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Session(_Row):
    """Who answers what, and when it began (seconds since 1970)."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    protocol: Literal[1] = PROTOCOL
    kind: Literal["person", "page", "simulated"]
    rater: Text
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    began: Time
    seen: bool = False
    run: str = ""
    page: str = ""  # the session of kind "page" whose trials these are
    agent: Text = ""
    viewport: Text = ""
    dpr: Time = 1.0


class Trial(_Row):
    """One question. classes: those of the image; options: those that can be chosen, in order, none in the first block."""

    n: Annotated[int, Field(ge=0)]
    block: Literal[1, 2]
    kind: Literal["elite", "real", "noise", "repeat"]
    image: Sha256
    classes: Classes
    options: Classes = ()


class Answer(_Row):
    """The answer to trial n: a text in the first block, a class or NOTHING_OF_THESE in the second one."""

    n: Annotated[int, Field(ge=0)]
    answer: Text = ""
    chosen: Annotated[int, Field(ge=NOTHING_OF_THESE)] = NOTHING_OF_THESE
    rt_ms: Time
    at: Time


class End(_Row):
    at: Time
    seen: bool = False


class Seen(_Row):
    """When it was known of an open session that the rater knows its images."""

    at: Time


class Code(_Row):
    """The classes that a text names, by somebody who did not see the image."""

    answer: Text
    classes: Classes
    coder: Text
    at: Time


class Record(NamedTuple):
    """All that is stored of a session. answers: of the first trials, in order; all of them once it ended.

    marked: set if the rater got to know the images between the beginning and the end.
    """

    session: Session
    trials: tuple[Trial, ...]
    answers: tuple[Answer, ...]
    end: End | None
    marked: Seen | None = None

    @property
    def seen(self) -> bool:
        """Whether the rater knew the images, at any time before the end; then the session does not count."""
        return self.session.seen or self.marked is not None or (self.end is not None and self.end.seen)

    @property
    def pairs(self) -> list[tuple[Trial, Answer]]:
        """The answered trials."""
        return list(zip(self.trials, self.answers, strict=False))
