"""Made-up patients whose drugs follow from what the names of their diagnoses mean."""

import numpy as np

ORGANS, DISORDERS, PROCEDURES, DRUGS, TYPES = 10, 20, 60, 80, 4
CODES, VISITS, AT_ONCE = 200, 3, 3
FIELDS = (4, 4, 3, 3)
"""Values of each field of the profile."""
CLS, VISIT = 1, 2
"""Tokens of the text: its beginning, and that of a visit; 0 is none."""
PROFILE = 3
ORGAN = PROFILE + sum(FIELDS)
DISORDER = ORGAN + ORGANS
DRUG = DISORDER + DISORDERS
VOCABULARY = DRUG + DRUGS
TEXT = 1 + len(FIELDS) + VISITS * (1 + 4 * AT_ONCE) + (VISITS - 1) * 5


class Clinic:
    """A diagnosis or procedure has an organ and a disorder in its name; drugs depend on those and on a patient's type,
    which shows in earlier drugs and, weakly, in the profile. Codes are drawn by Zipf's law: most are rare."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.names = rng.integers((ORGANS, DISORDERS), size=(CODES + PROCEDURES, 2))
        weights = 1 / np.arange(1, CODES + 1.0)
        self.shares = weights / weights.sum()
        self.effects = [rng.standard_normal((n, DRUGS)) * 1.6 for n in (ORGANS, DISORDERS, TYPES)]
        self.fields = [rng.dirichlet(np.full(n, 1.0), TYPES) for n in FIELDS]
        self.clashes = np.triu(rng.random((DRUGS, DRUGS)) < 0.1, 1)
        """Pairs of drugs that do not go together."""

    def draw(self, rng: np.random.Generator, count: int, first: float = 0.6) -> dict[str, np.ndarray]:
        """Rows of so many patients, of which that share is there for the first time: what `VisitRecommender` reads,
        `label`, `text` `[N, TEXT]` as the teacher reads it, and how many `visits` there were."""
        codes = {name: np.zeros((count, VISITS, AT_ONCE), np.int64) for name in ("diagnoses", "procedures")}
        earlier, text = np.zeros((count, VISITS - 1, DRUGS), np.int64), np.zeros((count, TEXT), np.int64)
        profile, label = np.zeros((count, len(FIELDS)), np.int64), np.zeros((count, DRUGS), np.int64)
        visits = np.where(rng.random(count) < first, 1, rng.integers(2, VISITS + 1, count))
        for i in range(count):
            kind = int(rng.integers(TYPES))
            profile[i] = [rng.choice(len(f[kind]), p=f[kind]) for f in self.fields]
            words = [CLS, *(PROFILE + sum(FIELDS[:f]) + int(v) for f, v in enumerate(profile[i]))]
            for visit in range(VISITS - visits[i], VISITS):
                found = rng.choice(CODES, int(rng.integers(1, AT_ONCE + 1)), replace=False, p=self.shares)
                done = rng.choice(PROCEDURES, int(rng.integers(0, AT_ONCE)), replace=False)
                codes["diagnoses"][i, visit, : len(found)] = found + 1
                codes["procedures"][i, visit, : len(done)] = done + 1
                both = self.names[[*found, *(done + CODES)]]
                given = self._given(both, kind, rng)
                words += [VISIT, *(word for organ, disorder in both for word in (ORGAN + organ, DISORDER + disorder))]
                if visit < VISITS - 1:
                    earlier[i, visit] = given * np.arange(1, DRUGS + 1)
                    words += [DRUG + int(d) for d in np.flatnonzero(given)[:5]]
                else:
                    label[i] = given
            text[i, : len(words)] = words
        return {**codes, "earlier": earlier, "profile": profile, "label": label, "text": text, "visits": visits}

    def _given(self, names: np.ndarray, kind: int, rng: np.random.Generator) -> np.ndarray:
        organs, disorders, types = self.effects
        score = (organs[names[:, 0]] + disorders[names[:, 1]]).mean(0) + types[kind] - 3.0
        return (rng.random(DRUGS) < 1 / (1 + np.exp(-score))).astype(np.int64)
