"""What recipes on plain text share: domains of text as rows of tokens, and models that learn them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distill.core.errors import DistillError
from distill.core.objectives.base import WeightedSum
from distill.core.objectives.divergences import CrossEntropy
from distill.core.tables import FixedDomain, Rows
from distill.core.teachers import RecordedLogits, Teacher
from distill.language.data import sources
from distill.language.evaluate import over
from distill.language.models import Read, Shape, causal, load
from distill.language.packing import chunks
from distill.language.student import ModelStudent, Next
from distill.language.text import Tokens, characters, published, require_same
from distill.methods.framework import Trial
from distill.methods.method import Losses, taught


def model_of(trial: Trial, source: Shape | str, vocabulary: int, stream: int) -> Any:
    """A model of a shape, with that vocabulary and random weights of the seed's `stream`, or a published one."""
    if isinstance(source, Shape):
        source = Shape(**{**vars(source), "vocabulary": vocabulary})
    return load(source, seed=trial.number(stream))


def learn_rows(
    trial: Trial, model: Any, read: Read, rows: Mapping[str, Rows], steps: int, **options: Any
) -> dict[str, Any]:
    """Next-token learning on domains of rows."""
    tables = [FixedDomain(name, part) for name, part in rows.items()]
    return trial.fit(ModelStudent(model, read), CrossEntropy(), Next(), tables, steps=steps, **options)


class TextLab:
    """Domains of one seed, each split into disjoint rows of `length` predictions."""

    def __init__(
        self, trial: Trial, names: tuple[str, ...], length: int, splits: Mapping[str, int], models: tuple[Any, ...] = ()
    ) -> None:
        """`names` are generated sources, replaced by the domains of `--data` where it is given; `splits` says how many
        rows of each domain go where. `models` that are published ones bring their tokenizer; characters are tokens
        otherwise.

        Raises:
          DistillError: a domain with too little text, or published models of different tokenizers.
        """
        self.trial, self.length = trial, length
        self.splits = {name: trial.scaled(count, 4) for name, count in splits.items()}
        wanted = (sum(self.splits.values()) + 1) * length + 1
        if trial.corpus is not None:
            texts = {name: text for name, text in trial.corpus.domains().items() if len(text) >= wanted}
            if not texts:
                raise DistillError(f"no domain of the data folder has the {wanted} characters that this recipe takes")
        else:
            texts = sources(dict.fromkeys(names, wanted), trial.number(0))
        self.tokens = self._tokens(texts, models)
        self.vocabulary = self.tokens.size
        self.read = causal(self.vocabulary)
        self.domains = {name: self._split(name, self.tokens.encode(text)) for name, text in texts.items()}

    def _tokens(self, texts: Mapping[str, str], models: tuple[Any, ...]) -> Tokens:
        names = [model for model in models if isinstance(model, str)]
        if not names:
            return characters(texts.values())
        found = [published(name) for name in names]
        for other in found[1:]:
            require_same(found[0], other)
        return found[0]

    def _split(self, name: str, ids: list[int]) -> dict[str, dict[str, np.ndarray]]:
        rows, found, first = chunks(ids, self.length), {}, 0
        need, here = sum(self.splits.values()), len(rows["tokens"])
        if here < need:
            raise DistillError(f"the domain '{name}' has {here} rows of {self.length} tokens, {need} are needed")
        if self.trial.corpus is not None:  # other seeds see other parts of the text
            shift = int(self.trial.rng(7).integers(here))
            rows = {key: np.roll(values, shift, 0) for key, values in rows.items()}
        for split, count in self.splits.items():
            found[split] = {key: values[first : first + count] for key, values in rows.items()}
            first += count
        return found

    def of(self, split: str) -> dict[str, Rows]:
        """Domain -> the rows of one split."""
        return {name: parts[split] for name, parts in self.domains.items()}

    def model(self, source: Shape | str, stream: int) -> Any:
        """A model of a shape, with this vocabulary and random weights of this seed's `stream`, or a published one."""
        return model_of(self.trial, source, self.vocabulary, stream)

    def learn(self, model: Any, rows: Mapping[str, Rows], steps: int, **options: Any) -> dict[str, Any]:
        """Next-token learning on domains of rows."""
        return learn_rows(self.trial, model, self.read, rows, steps, **options)

    def distil(
        self,
        model: Any,
        tables: list[FixedDomain],
        steps: int,
        losses: Losses,
        teacher: Teacher | None = None,
        **options: Any,
    ) -> dict:
        """Learning with a method's losses from labels and from a teacher, by default logits that `with_logits` wrote
        down."""
        student, teachers = ModelStudent(model, self.read), taught(losses, teacher or RecordedLogits())
        return self.trial.fit(student, WeightedSum(losses), teachers, tables, steps=steps, **options)

    def with_logits(self, teacher: Any, rows: Rows) -> dict[str, np.ndarray]:
        """Rows with the teacher's logits `[N, T, V]` in float16 beside them: asked once, used by all arms."""
        logits = over(teacher, rows, lambda batch: self.read(teacher, batch).half())
        return {**rows, "logits": logits.numpy()}
