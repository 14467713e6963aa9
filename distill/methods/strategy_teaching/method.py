"""Strategies as text beside a student that stays as it is (arXiv 2408.07238).

A library holds scenarios, each with a few strategies. `teach` fills it: the student holds dialogues with the library as
it is; where a judge finds its answer worse than the teacher's, the teacher names the scenario in a line and writes a
strategy, and revises it until the student's answer is as good. An entry is kept only where the last answer beats the
first. Then the student holds dialogues again, now with the longer library, and meets states that it did not reach.
At each turn `Library.find` gives the strategies of the scenarios that are nearest. No weights change.

    from distill.methods.strategy_teaching.method import Library, Models, speaker, teach

    student = speaker(AutoModelForCausalLM.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER"))
    roles = Models(student=student, teacher=endpoint_speaker(endpoint), judge=endpoint_speaker(other))
    library, found = teach(roles.dialogues(["a customer whose parcel is late"]), roles, roles)
    library.save(Path("library.jsonl"))

`Models` plays all roles with functions from chat messages to text: of a local model, of an endpoint, or of your own.
Prompts, rounds and the number of entries are choices of this project; the paper's are not known. A customer's own words
never become an instruction: only what the teacher writes is kept.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from distill.core.checkpoints import write_text
from distill.core.errors import DistillError, first_line
from distill.core.reading import read_text, unique
from distill.language.examples import NOT_TEXT, fault_of
from distill.language.knowledge import Embed, Entry, KnowledgeBase, words

Message = Mapping[str, str]
"""`role` (system, user or assistant) and `content`."""
Speak = Callable[[Sequence[Message]], str]
"""What a model says next."""
OTHER = {"user": "assistant", "assistant": "user"}
"""How a dialogue looks to the other side."""


@dataclass(frozen=True)
class State:
    """A dialogue that waits for the student's answer."""

    messages: tuple[Message, ...]
    """The customer's turns are the `user`'s, the student's the `assistant`'s; the last one is a customer's."""
    about: Any = field(default=None, compare=False)
    """What a simulator knows of it; never shown to a student."""

    @property
    def said(self) -> str:
        """The customer's last turn."""
        return self.messages[-1]["content"]

    @property
    def text(self) -> str:
        """What nearest scenarios are looked for with: the last turn, and the student's last answer before it, as equal
        turns may come after different ones."""
        return "\n".join(turn["content"] for turn in self.messages[-2:])


@dataclass(frozen=True)
class Lesson:
    """An entry of a library."""

    scenario: str
    strategies: tuple[str, ...]
    origin: str = ""
    """Who wrote it, and from what."""
    date: str = ""
    reviewer: str = ""
    """The person who read it; nobody where empty."""


class Library:
    """Lessons, found by BM25 over their scenarios' words, or by an embedder's vectors."""

    def __init__(self, lessons: Iterable[Lesson] = (), embed: Embed | None = None) -> None:
        self.lessons, self.embed = list(lessons), embed
        self._base: KnowledgeBase | None = None

    def add(self, lesson: Lesson) -> None:
        """Keeps it, unless its scenario or its strategies have no word."""
        if words(lesson.scenario) and any(map(words, lesson.strategies)):
            self.lessons.append(lesson)
            self._base = None

    def find(self, texts: Sequence[str], count: int = 3) -> list[list[Lesson]]:
        """The `count` nearest lessons of each text, the nearest first."""
        if not self.lessons:
            return [[] for _ in texts]
        if self._base is None:
            self._base = KnowledgeBase([Entry(lesson.scenario, "") for lesson in self.lessons], self.embed)
        return [[self.lessons[hit.place] for hit in hits] for hits in self._base.find(texts, count)]

    def strategies(self, texts: Sequence[str], count: int = 3) -> list[list[str]]:
        """The strategies of those lessons, each once."""
        return [
            list(dict.fromkeys(strategy for lesson in lessons for strategy in lesson.strategies))
            for lessons in self.find(texts, count)
        ]

    def novelty(self, text: str) -> float:
        """1 less the share of the text's words that the nearest scenario has; with an embedder 1 less the cosine."""
        nearest = self.find([text], 1)[0]
        if not nearest:
            return 1.0
        if self.embed is not None:
            ours, theirs = self.embed([text, nearest[0].scenario])
            return 1 - float(ours @ theirs)
        asked = set(words(text))
        return 1 - len(asked & set(words(nearest[0].scenario))) / max(len(asked), 1)

    def save(self, path: Path) -> None:
        """JSONL, a row a lesson: to be read, edited and dated by people."""
        write_text(path, "".join(json.dumps(asdict(lesson), ensure_ascii=False) + "\n" for lesson in self.lessons))

    @classmethod
    def load(cls, path: Path, embed: Embed | None = None) -> "Library":
        """What `save` wrote, or a person did. Raises `DistillError` where the file is something else."""
        try:
            # lines of the file alone: `splitlines` also breaks where a text within a row has U+2028
            rows = [json.loads(line, object_pairs_hook=unique) for line in read_text(path).split("\n") if line.strip()]
            more = ("origin", "date", "reviewer")
            for number, row in enumerate(rows, 1):
                missing = [name for name in ("scenario", "strategies") if not isinstance(row, dict) or name not in row]
                if missing:
                    raise ValueError(f"lesson {number} has no {missing[0]}")
                strategies = row["strategies"]
                if not isinstance(strategies, list):
                    raise ValueError(f"the strategies of lesson {number} are no list")
                others = (fault_of(row.get(name)) for name in more)
                if fault_of(row["scenario"], *strategies) or NOT_TEXT in others:
                    raise ValueError(f"lesson {number} has a scenario, a strategy or more that is no text")
            return cls(
                [
                    Lesson(
                        row["scenario"], tuple(row["strategies"]),
                        **{name: row.get(name) or "" for name in more},
                    )
                    for row in rows
                ],
                embed,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DistillError(f"{path} holds no library: {first_line(error)}") from error


class Student(Protocol):
    """Answers, with strategies or without."""

    def answers(self, states: Sequence[State], strategies: Sequence[Sequence[str]]) -> list[str]:
        """One for each state."""
        ...


class Coach(Protocol):
    """The teacher and the judge. Each of the first three is one call of the teacher."""

    def answer(self, state: State) -> str:
        """The teacher's own."""
        ...

    def scenario(self, state: State) -> str:
        """The state's name, in one line."""
        ...

    def strategy(self, state: State, said: str, before: Sequence[str]) -> str:
        """What to do in such scenarios, after the student said that with the strategies `before`; not the answer."""
        ...

    def as_good(self, state: State, said: str, reference: str) -> bool:
        """The judge's: whether one answer is as good as the other."""
        ...

    def better(self, state: State, said: str, before: str) -> bool:
        """The judge's: whether one answer beats the other."""
        ...


Dialogues = Callable[[Student, Library, int], Sequence[State]]
"""States of dialogues that a student holds with a library, in the loop's pass of that number."""


@dataclass(frozen=True)
class Coaching:
    """How `teach` goes about it."""

    calls: int = 2500
    """Of the teacher, at most."""
    rounds: int = 3
    """Strategies that are tried at one state, at most."""
    found: int = 3
    """Scenarios whose strategies a student is given."""
    novelty: float = 0.2
    """A state that is less new than that is met only where the student does badly with what it was given, and no more
    than once in a pass."""
    passes: int = 10
    """Times that dialogues are held anew, at most; 1 looks at the untaught student alone."""

    def __post_init__(self) -> None:
        for name in ("calls", "rounds", "found", "passes"):
            if getattr(self, name) < 1:
                raise DistillError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.novelty <= 1:
            raise DistillError(f"novelty must be from 0 to 1, got {self.novelty}")


def teach(
    dialogues: Dialogues,
    student: Student,
    coach: Coach,
    options: Coaching = Coaching(),  # noqa: B008 (frozen)
    library: Library | None = None,
    origin: str = "teacher",
    date: str = "",
) -> tuple[Library, dict[str, int]]:
    """A library of what the student lacked, added to one that is there, and what it cost.

    Returns: the library; `calls` of the teacher, `passes`, `states` that were looked at, `kept` and `refused` lessons.
    """
    library = Library() if library is None else library
    found: dict[str, int] = dict.fromkeys(("calls", "passes", "states", "kept", "refused"), 0)
    while found["passes"] < options.passes and found["calls"] + options.rounds + 2 <= options.calls:
        kept, met = found["kept"], set[str]()
        states = dialogues(student, library, found["passes"])
        found["passes"] += 1
        for state in states:
            if found["calls"] + options.rounds + 2 > options.calls:
                break
            if library.novelty(state.text) < options.novelty:
                nearest = library.find([state.text], 1)[0][0].scenario
                if nearest in met:
                    continue
                met.add(nearest)
            found["states"] += 1
            lesson = _lesson(state, student, coach, options, library, found)
            if lesson is not None:
                library.add(Lesson(*lesson, origin=origin, date=date))
                met.add(lesson[0])
        if found["kept"] == kept:
            break
    return library, found


def _lesson(
    state: State, student: Student, coach: Coach, options: Coaching, library: Library, found: dict[str, int]
) -> tuple[str, tuple[str, ...]] | None:
    """A scenario with strategies that made the student better; None where it was as good or got no better."""
    given = library.strategies([state.text], options.found)[0]
    first = student.answers([state], [given])[0]
    reference = coach.answer(state)
    found["calls"] += 1
    if coach.as_good(state, first, reference):
        return None
    written: list[str] = []
    last = first
    for _ in range(options.rounds):
        written.append(coach.strategy(state, last, written))
        found["calls"] += 1
        last = student.answers([state], [[*reversed(written), *given]])[0]
        if coach.as_good(state, last, reference):
            break
    if not coach.better(state, last, first):
        found["refused"] += 1
        return None
    found["calls"] += 1
    found["kept"] += 1
    return coach.scenario(state), tuple(reversed(written))


@dataclass
class Models:
    """All roles played by language models that are asked in words."""

    student: Speak
    teacher: Speak
    judge: Speak
    """Of another family than the teacher: models like their own style."""
    customer: Speak | None = None
    """Plays personas; the judge where None."""
    policy: str = "You are the service agent. Answer the customer briefly and politely."
    """Of the student, before any strategy."""
    turns: int = 4
    found: int = 3
    """Scenarios whose strategies the student is given in a dialogue."""

    def answers(self, states: Sequence[State], strategies: Sequence[Sequence[str]]) -> list[str]:
        """The student's, with strategies in its system message after what is fixed."""
        found: list[str] = []
        for state, given in zip(states, strategies, strict=True):
            hints = "".join(f"\n- {strategy}" for strategy in given)
            system = self.policy + (f"\nStrategies for cases like this:{hints}" if hints else "")
            found.append(self.student([{"role": "system", "content": system}, *state.messages]))
        return found

    def answer(self, state: State) -> str:
        """The teacher's own."""
        return self.teacher([{"role": "system", "content": self.policy}, *state.messages])

    def scenario(self, state: State) -> str:
        """In one line."""
        ask = "Name the situation that the agent is in, in one general line, without names or numbers."
        return _line(self._asked(ask, state))

    def strategy(self, state: State, said: str, before: Sequence[str]) -> str:
        """In one line."""
        tried = "".join(f"\nTried already: {each}" for each in before)
        return _line(
            self._asked(
                f"The agent would say: {said}{tried}\nWrite one short, general, imperative line that says what an agent"
                " should do differently in situations like this. Do not write the reply itself.",
                state,
            )
        )

    def as_good(self, state: State, said: str, reference: str) -> bool:
        """Asked in both orders: not worse in either of them."""
        return "reference" not in self._preferred(state, said, reference)

    def better(self, state: State, said: str, before: str) -> bool:
        """Asked in both orders: better in one, and worse in none."""
        votes = self._preferred(state, said, before)
        return "said" in votes and "reference" not in votes

    def dialogues(self, personas: Sequence[str]) -> Dialogues:
        """Holds a dialogue with each of the personas in every pass."""

        def hold(student: Student, library: Library, number: int) -> list[State]:  # noqa: ARG001
            return [state for persona in personas for state in self.hold(student, library, persona)]

        return hold

    def hold(self, student: Student, library: Library, persona: str) -> list[State]:
        """One dialogue of so many turns, as its states."""
        speak, states, turns = self.customer or self.judge, list[State](), list[Message]()
        play = f"Play this customer, who talks to a service agent; say one short turn: {persona}"
        for _ in range(self.turns):
            mine = [{"role": OTHER[turn["role"]], "content": turn["content"]} for turn in turns]
            opening = [{"role": "user", "content": "Hello, how can I help you?"}]
            turns.append({"role": "user", "content": speak([{"role": "system", "content": play}, *opening, *mine])})
            states.append(State(tuple(turns), persona))
            said = student.answers(states[-1:], library.strategies([states[-1].text], self.found))[0]
            turns.append({"role": "assistant", "content": said})
        return states

    def _asked(self, question: str, state: State) -> str:
        return self.teacher([{"role": "user", "content": f"{_written(state)}\n\n{question}"}])

    def _preferred(self, state: State, said: str, reference: str) -> list[str]:
        """Which of two answers the judge likes better, in either order; `neither` where it says neither A nor B."""
        votes: list[str] = []
        for order in (("said", "reference"), ("reference", "said")):
            texts = dict(zip("AB", [{"said": said, "reference": reference}[who] for who in order], strict=True))
            both = "\n".join(f"{name}: {text}" for name, text in texts.items())
            ask = f"{_written(state)}\n\nTwo answers of the agent:\n{both}\nWhich is better? Say A, B or equal."
            vote = self.judge([{"role": "user", "content": ask}]).strip().strip("\"'*().").upper()[:1]
            votes.append(dict(zip("AB", order, strict=True)).get(vote, "neither"))
        return votes


def _written(state: State) -> str:
    """The dialogue, quoted, so that what a customer says is no instruction."""
    names = {"user": "Customer", "assistant": "Agent", "system": "System"}
    return "A dialogue:\n" + "\n".join(f"{names[t['role']]}: {json.dumps(t['content'])}" for t in state.messages)


def _line(text: str) -> str:
    """Without line breaks."""
    return " ".join(text.split())


def speaker(model: Any, tokenizer: Any, new_tokens: int = 128) -> Speak:
    """What a causal model of transformers says, greedily: by its chat template, or as `role: text` without one.

    It raises `DistillError` for messages that its template refuses, and for more than the model reads.
    """
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    @torch.no_grad()
    def speak(messages: Sequence[Message]) -> str:
        chat = [dict(message) for message in messages]
        if getattr(tokenizer, "chat_template", None):
            try:
                text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # a template is a program, which raises what it likes
                reason = first_line(error)
                raise DistillError(f"a chat template refuses the dialogue: {reason}") from error
        else:
            text = "".join(f"{turn['role']}: {turn['content']}\n" for turn in chat) + "assistant:"
        read = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        length = read["input_ids"].shape[1] + new_tokens
        if isinstance(most, int) and length > most:
            raise DistillError(f"a dialogue with its answer is {length} tokens, and the model reads {most} at most")
        inputs = {name: read[name].to(model.device) for name in ("input_ids", "attention_mask")}
        model.eval()
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        found = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, pad_token_id=pad)
        said = tokenizer.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return said.strip().split("\nuser:")[0]

    return speak


def endpoint_speaker(endpoint: Any) -> Speak:
    """What a model behind a `distill.language.endpoint.client.Endpoint` says; answers are kept in its folder."""
    return lambda messages: endpoint.complete([[dict(message) for message in messages]])[0].text
