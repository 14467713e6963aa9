"""Patients' visits as their owners keep them: rows of codes, what a recommender knows of them, what a teacher reads."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from distill.core.errors import DistillError
from distill.language.examples import NOT_TEXT, fault_of, reasons, rows_with

DIAGNOSES, PROCEDURES, MEDICATIONS = KINDS = ("diagnoses", "procedures", "medications")
NO_VISIT, NO_CODES, TOO_MANY = "no visit", "codes that are no texts", "more codes of a kind in a visit than 256"
NO_PROFILE = "a profile of other things than texts"
MOST = 256
"""Codes of one kind in a visit: a row with more makes all others as wide."""
OTHER = 1
"""Number of a diagnosis or procedure that is not known, and of a visit without diagnoses; 0 is none."""
Codes = tuple[str, ...]


@dataclass(frozen=True)
class Visit:
    """Codes, each once."""

    diagnoses: Codes
    procedures: Codes
    medications: Codes | None
    """None where nobody knows them."""


@dataclass(frozen=True)
class Patient:
    """Visits in their order; the last is the one to prescribe for."""

    visits: tuple[Visit, ...]
    profile: Mapping[str, str] = field(default_factory=dict[str, str])
    text: str | None = None
    """What a teacher reads in place of the codes' names."""

    @property
    def known(self) -> bool:
        """Whether the medications of the last visit are."""
        return self.visits[-1].medications is not None

    @property
    def first(self) -> bool:
        """Whether the visit to prescribe for is the first."""
        return len(self.visits) == 1

    def at(self, count: int, most: int) -> "Patient":
        """As the patient was at that visit, without visits before the last `most`."""
        return Patient(self.visits[:count][-most:], self.profile, self.text)

    def examples(self, every_visit: bool, most: int) -> list["Patient"]:
        """As the patient was at each visit, or at the last alone; without visits before the last `most`.

        Raises:
          DistillError: each of several visits of a patient whose text tells of all.
        """
        if every_visit and self.text is not None and not self.first:
            raise DistillError("--every-visit needs rows without a text: it would tell of later visits too")
        count = len(self.visits)
        return [self.at(place, most) for place in range(1 if every_visit else count, count + 1)]


@dataclass
class Patients:
    """Rows as they were read."""

    rows: list[Patient] = field(default_factory=list[Patient])
    dropped: Counter[str] = field(default_factory=Counter[str])
    """Reason -> rows."""
    files: dict[str, str] = field(default_factory=dict[str, str])


class Unusable(DistillError):
    """Why a row is no patient."""


def read_patients(paths: Sequence[Path]) -> Patients:
    """Rows with `visits`, a list of objects with `diagnoses`, `procedures` and `medications`, each a list of codes, and
    perhaps a `profile`, an object of texts, and a `text`.

    Raises:
      DistillError: nothing there, other fields, or no row that can be used.
    """
    found = Patients()
    for where, row in rows_with(paths, ("visits",), found.files):
        try:
            found.rows.append(patient_of(row, where))
        except Unusable as why:
            found.dropped[str(why)] += 1
    if not found.rows:
        why = reasons(found.dropped, "there is no row")
        raise DistillError(f"{', '.join(map(str, paths))}: no row is of a patient with visits ({why})")
    return found


def patient_of(row: Mapping[str, Any], where: str) -> Patient:
    """The patient of a row.

    Raises:
      Unusable: there is none in it.
      DistillError: a visit with other fields.
    """
    visits, profile, text = row.get("visits"), row.get("profile") or {}, row.get("text")
    if not isinstance(visits, list | tuple) or not visits:
        raise Unusable(NO_VISIT)
    if not isinstance(profile, Mapping):
        raise Unusable(NO_PROFILE)
    if text is not None and fault_of(text) == NOT_TEXT:
        raise Unusable(NOT_TEXT)
    found: list[Visit] = []
    for place, visit in enumerate(visits, 1):
        if not isinstance(visit, Mapping) or DIAGNOSES not in visit:
            there = ", ".join(map(str, visit)) if isinstance(visit, Mapping) else type(visit).__name__
            raise DistillError(f"{where}, visit {place}: the fields are {there}; wanted are {', '.join(KINDS)}")
        given = _codes(visit.get(MEDICATIONS))
        found.append(Visit(_codes(visit[DIAGNOSES]) or (), _codes(visit.get(PROCEDURES)) or (), given))
    told = {_word(name, NO_PROFILE): _word(value, NO_PROFILE) for name, value in profile.items() if value is not None}
    return Patient(tuple(found), told, text if text and text.strip() else None)


def _codes(value: Any) -> Codes | None:
    """Codes in their order, each once; None where there is no list."""
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise Unusable(NO_CODES)
    found = tuple(dict.fromkeys(_word(each, NO_CODES) for each in value))
    if len(found) > MOST:
        raise Unusable(TOO_MANY)
    return found


def _word(value: Any, why: str) -> str:
    """A code or a value of a profile: a text, or a whole number. Raises `Unusable`, and `why`, for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if fault_of(value):
        raise Unusable(why)
    return value.strip()


@dataclass(frozen=True)
class Vocabulary:
    """What a recommender knows by numbers."""

    diagnoses: Codes
    """From 2 on; 1 is any other."""
    procedures: Codes
    medications: Codes
    """From 1 on; any other cannot be recommended, and is no earlier one."""
    profile: Mapping[str, Codes]
    """Values of each field, from 1 on; 0 is any other, or none."""

    @classmethod
    def of(cls, patients: Sequence[Patient], rare: int) -> Self:
        """Diagnoses and procedures of at least `rare` patients, all medications, all values of the profile.

        Raises:
          DistillError: no medication.
        """
        seen: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        values: dict[str, dict[str, None]] = {}
        for patient in patients:
            for kind in KINDS:
                own = (code for visit in patient.visits for code in getattr(visit, kind) or ())
                seen[kind].update(dict.fromkeys(own, 1))
            for name, value in patient.profile.items():
                values.setdefault(name, {})[value] = None
        least = {DIAGNOSES: rare, PROCEDURES: rare, MEDICATIONS: 1}
        codes = {kind: tuple(sorted(c for c, n in seen[kind].items() if n >= least[kind])) for kind in KINDS}
        if not codes[MEDICATIONS]:
            raise DistillError("no patient that is learned from has a medication")
        return cls(**codes, profile={name: tuple(sorted(values[name])) for name in sorted(values)})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Of what `vars` of one says. Raises what a mapping of another form makes Python raise, or `ValueError`."""

        def codes(name: str, each: Any) -> Codes:
            texts = isinstance(each, list) and all(isinstance(one, str) for one in each)
            if not texts or len(set(each)) < len(each):
                raise ValueError(f"{name} is no list of codes, each once")
            return tuple(each)

        profile = {name: codes(name, each) for name, each in values["profile"].items()}
        return cls(**{kind: codes(kind, values[kind]) for kind in KINDS}, profile=profile)

    def sizes(self) -> dict[str, Any]:
        """Of a `VisitRecommender`. Without a profile a vector that all have stands for drugs at a first visit."""
        return {
            "diagnoses": 1 + len(self.diagnoses), "procedures": 1 + len(self.procedures),
            "drugs": len(self.medications),
            "profile": tuple(1 + len(each) for each in self.profile.values()) or (1,),
        }  # fmt: skip

    def rows(self, patients: Sequence[Patient]) -> dict[str, np.ndarray]:
        """What `VisitRecommender` reads of patients."""
        every = [patient.visits for patient in patients]
        visits = max(2, *map(len, every))
        codes = {kind: self._numbered(kind, every, visits) for kind in KINDS}
        profile = np.zeros((len(patients), max(len(self.profile), 1)), np.int64)
        for place, (name, values) in enumerate(self.profile.items()):
            numbers = {value: i for i, value in enumerate(values, 1)}
            profile[:, place] = [numbers.get(patient.profile.get(name, ""), 0) for patient in patients]
        return {
            DIAGNOSES: _filled(codes[DIAGNOSES]), PROCEDURES: _filled(codes[PROCEDURES]),
            "earlier": _filled([own[:-1] for own in codes[MEDICATIONS]]), "profile": profile,
        }  # fmt: skip

    def _numbered(self, kind: str, every: Sequence[Sequence[Visit]], visits: int) -> list[list[list[int]]]:
        """Numbers of each visit's codes, after visits that are none."""
        first, other = (1, 0) if kind == MEDICATIONS else (OTHER + 1, OTHER)
        numbers = {code: i for i, code in enumerate(getattr(self, kind), first)}

        def own(visit: Visit) -> list[int]:
            found = {numbers.get(code, other) for code in getattr(visit, kind) or ()} - {0}
            return sorted(found) or ([OTHER] if kind == DIAGNOSES else [])

        return [[*([] for _ in range(visits - len(there))), *map(own, there)] for there in every]

    def labels(self, patients: Sequence[Patient], others: Sequence[str] = ()) -> np.ndarray:
        """`[N, M]`, 1 for each medication of the last visit; after them columns of `others`, which are not known."""
        places = {code: i for i, code in enumerate((*self.medications, *others))}
        found = np.zeros((len(patients), len(places)), np.int64)
        for row, patient in enumerate(patients):
            found[row, [places[code] for code in patient.visits[-1].medications or () if code in places]] = 1
        return found

    def unknown(self, patients: Sequence[Patient]) -> list[str]:
        """Medications of last visits that are not known: they were right, and cannot be recommended."""
        known = set(self.medications)
        return sorted({code for p in patients for code in p.visits[-1].medications or ()} - known)


def _filled(sets: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """`[N, V, C]` of codes, 0 for none."""
    most = max((len(own) for visits in sets for own in visits), default=0)
    found = np.zeros((len(sets), len(sets[0]), max(most, 1)), np.int64)
    for row, visits in enumerate(sets):
        for place, own in enumerate(visits):
            found[row, place, : len(own)] = own
    return found


Naming = Callable[[str, str], str]
"""What a code of a kind is called."""


def read_names(path: Path | None, files: dict[str, str]) -> Mapping[tuple[str, str], str]:
    """(kind, code) -> name, of rows with `code`, `name` and perhaps a `kind`, one of `KINDS`; `""` is any kind.

    Raises:
      DistillError: nothing there, other fields, an unknown kind, what is no text, or a code with two names.
    """
    found: dict[tuple[str, str], str] = {}
    if path is None:
        return found
    for where, row in rows_with([path], ("code", "name"), files):
        kind = row.get("kind") or ""
        if kind not in ("", *KINDS):
            raise DistillError(f"{where}: the kind is {kind!r}; wanted is {', '.join(KINDS)}, or none")
        code, name = (_word(row[field], f"{where}: the {field} is no text") for field in ("code", "name"))
        if found.setdefault((kind, code), name) != name:
            raise DistillError(f"{where}: {code} is called {name!r}, and before {found[kind, code]!r}")
    if not found:
        raise DistillError(f"{path} holds no name")
    return found


def naming(names: Mapping[tuple[str, str], str]) -> Naming:
    """A code's name of its kind, of any kind, or the code itself."""
    return lambda kind, code: names.get((kind, code)) or names.get(("", code), code)


def described(patient: Patient, called: Naming) -> str:
    """What a teacher reads: the profile, earlier visits with what was given, and the visit to prescribe for."""
    if patient.text is not None:
        return patient.text

    def told(visit: Visit, kinds: Sequence[str]) -> str:
        words = {kind: "; ".join(called(kind, code) for code in getattr(visit, kind) or ()) for kind in kinds}
        return " ".join(f"{kind.capitalize()}: {said or 'none'}." for kind, said in words.items())

    *earlier, last = patient.visits
    profile = ", ".join(f"{name} {value}" for name, value in patient.profile.items())
    return "\n".join([
        *([f"Patient: {profile}."] if profile else []), f"Earlier visits: {len(earlier)}.",
        *(f"Visit {place}. {told(visit, KINDS)}" for place, visit in enumerate(earlier, 1)),
        f"This visit. {told(last, KINDS[:2])} Medications:",
    ])  # fmt: skip


def read_pairs(path: Path | None, known: Sequence[str], files: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs of medications that should not be given together, of rows with `first` and `second`; the known ones.

    Raises:
      DistillError: nothing there, other fields, what is no code, or no pair of known ones.
    """
    if path is None:
        return []
    among, found = set(known), dict[tuple[str, str], None]()
    for where, row in rows_with([path], ("first", "second"), files):
        first, second = sorted(_word(row[field], f"{where}: {field} is no code") for field in ("first", "second"))
        if {first, second} <= among and first != second:
            found[first, second] = None
    if not found:
        raise DistillError(f"{path}: no pair is of two medications that are learned")
    return [*found]


def clashes(pairs: Sequence[tuple[str, str]], medications: Sequence[str]) -> np.ndarray:
    """`[M, M]` booleans, True for a pair."""
    places = {code: i for i, code in enumerate(medications)}
    found = np.zeros((len(places), len(places)), bool)
    for first, second in pairs:
        found[places[first], places[second]] = True
    return found
