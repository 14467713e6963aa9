"""Where every method stands: claims and needs from the declarations, figures from what was measured.

The table of docs/results.md, and the catalogue of docs/recipes.md by the axes of a survey (arXiv 2402.13116):

    python -m distill.methods.standing                                          both anew
    python -m distill.methods.standing --keep runs/recipes/ddk --rule COMMIT    after keeping a run's figures

A method has a row, by the variant of its experiment that is known best: one that was run with all its seeds before one
that has a pilot, the default one before others. A verdict is never written down, it follows from the figures.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distill.core.errors import DistillError
from distill.methods.catalogue import NAMES, find
from distill.methods.claims import plans
from distill.methods.framework import Recipe
from distill.methods.measured import Measured, Run, keep, read
from distill.methods.options import SMALL
from distill.methods.results import excluded
from distill.methods.run import powered
from distill.methods.statistics import Interval

BEGIN, END = (f"<!-- {word} of what `python -m distill.methods.standing` writes -->" for word in ("begin", "end"))
HEAD = ("method", "claim", "primary figure, mean with its interval", "seeds", "power for the effect worth finding",
        "verdict", "what it takes", "on your own models", "the experiment")  # fmt: skip
CATALOGUE = ("method", "taken from the teacher / put into the student", "skill", "vertical",
             "of the teacher must be open", "tokenizer", "what it takes",
             "devices at the paper's scale", "costs beyond plain fine-tuning",
             "a seed of the experiment, one core", "showed")  # fmt: skip
MORE = ("method", "claim", "figure, mean with its interval", "seeds", "power for the effect worth finding", "verdict")


@dataclass(frozen=True)
class Variant:
    """One experiment of a method, and what is kept of it."""

    recipe: Recipe
    domain: str
    preset: str
    kept: Measured

    @property
    def run(self) -> Run | None:
        """All its seeds; None where they have not been run."""
        run = self.kept.of(self.preset, self.domain, pilot=False)
        return run if run is not None and run.whole(self.recipe) else None

    @property
    def pilot(self) -> Run | None:
        """A pilot that measured the first claim."""
        run = self.kept.of(self.preset, self.domain, pilot=True)
        return run if run is not None and self.recipe.claims[0].name in run.figures else None

    @property
    def options(self) -> str:
        """What asks the command line for it, beside its name."""
        domain = f" --domain {self.domain}" * (self.domain != self.recipe.domains[0])
        return domain + f" --preset {self.preset} --data FOLDER" * (self.preset != SMALL[0])

    @property
    def verdict(self) -> str:
        """In a word: supported, null, contradicted, undecided or `not run`."""
        if self.run is None:
            return "not run"
        return self.run.judged(self.recipe)[0].verdict

    @property
    def figure(self) -> str:
        """What decides the first claim, as far as it is known."""
        claim = self.recipe.claims[0]
        if self.run is not None:
            return f"{claim.about}: {self.run.judged(self.recipe)[0].interval}"
        if self.pilot is not None:
            mean = Interval.of(self.pilot.figures[claim.name]).mean
            count = len(self.pilot.seeds)
            return f"{claim.about}: {mean:+.3g} in a pilot of {count} seed{'s' * (count > 1)}"
        if claim.name in self.kept.means and not self.options:
            mean, count = self.kept.means[claim.name], len(claim.power.pilot)
            return f"{claim.about}: {mean:+.3g} in a pilot of {count} seeds"
        if claim.power.spread is not None:
            return f"{claim.about}: spread {claim.power.spread:g} over {len(claim.power.pilot)} pilot seeds"
        return f"{claim.about}: no pilot yet"

    @property
    def showed(self) -> str:
        """The verdict with what belongs to it."""
        if self.run is not None:
            return said(self.run.judged(self.recipe)[0].about())
        failed = [] if self.pilot is None else [c for c in self.pilot.checks if c["role"] == "precondition"]
        why = "; ".join(check["text"] for check in failed if not check["holds"])
        earlier = f"; **{self.kept.earlier}** [under earlier rules](recipes.md#results-under-the-earlier-rules)"
        return "not run" + f", precondition failed in the pilot: {why}" * bool(why) + earlier * bool(self.kept.earlier)


def variants(name: str) -> list[Variant]:
    """The small experiments of a method, the default one first."""
    recipe, kept = find(name), read(name)
    found: list[Variant] = []
    for domain in recipe.domains:
        presets = [preset for preset in SMALL if preset in (recipe.on(domain).presets or SMALL[:1])]
        found += [Variant(recipe.on(domain, preset), domain, preset, kept) for preset in presets]
    return found


@cache
def best(name: str) -> Variant:
    """The variant that is known best."""
    every = variants(name)
    return min(every, key=lambda variant: (variant.run is None, variant.pilot is None, every.index(variant)))


def said(claim: Mapping[str, Any]) -> str:
    """The verdict of a claim that was judged, with what belongs to it."""
    return f"**{claim['verdict']}**{excluded(dict(claim))}" + f" ({claim['why']})" * bool(claim["why"])


def called(own: Sequence[str]) -> str:
    """How a method is called on models of one's own."""
    return "; ".join(f"`{each}`" if each.startswith("barkour ") else f"in Python, `{each}`" for each in own)


def row(variant: Variant) -> tuple[str, ...]:
    """A method in the columns of `HEAD`."""
    recipe = variant.recipe
    about = recipe.about()
    claim = plans(recipe.claims, recipe.seeds)[0]
    seeds = f"{recipe.seeds}" if claim["spread"] is not None else f"{recipe.seeds}, provisional"
    done = len(variant.run.seeds) if variant.run is not None else 0
    return (
        f"`{recipe.name}`, {recipe.source}", recipe.claims[0].text, variant.figure,
        f"{done} of {seeds}", powered(claim), variant.showed, recipe.needs, called(about["own_models"]),
        f"`barkour recipe run {recipe.name}{variant.options} --seed 1000`",
    )  # fmt: skip


def rows() -> list[tuple[str, ...]]:
    """All methods by name."""
    return [row(best(name)) for name in NAMES]


def further() -> Iterator[tuple[str, ...]]:
    """Claims and mechanisms, beyond the row of the method, of every variant whose seeds have been run."""
    for name in NAMES:
        for variant in variants(name):
            if variant.run is None:
                continue
            for place, judged in enumerate(variant.run.judged(variant.recipe)):
                if place or variant != best(name):
                    about = judged.about()
                    yield (
                        f"`{name}{variant.options}`, {about['role']}", about["text"],
                        f"{about['figure']}: {judged.interval}", str(about["seeds"]), powered(about),
                        said(about),
                    )  # fmt: skip


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def catalogue() -> dict[str, Any]:
    """All methods: `recipes`, each as `Recipe.about` with what it `showed` (`verdict`, `figure`) and the `seconds` that
    a seed of its experiment took, None where it was not kept; and their names `by_algorithm`, `by_skill`,
    `by_vertical`."""
    found = [entry(name) for name in NAMES]
    grouped: dict[str, dict[str, list[str]]] = {f"by_{axis}": {} for axis in ("algorithm", "skill", "vertical")}
    for each in found:
        for axis in ("algorithm", "skill", "vertical"):
            grouped[f"by_{axis}"].setdefault(each[axis], []).append(each["name"])
    return {"recipes": found, **grouped}


def entry(name: str, domain: str = "", preset: str = SMALL[0]) -> dict[str, Any]:
    """A method of the catalogue, as its experiment is on a domain and with a preset."""
    known, about = best(name), find(name).on(domain, preset).about()
    showed = {"verdict": known.verdict, "figure": known.figure, "experiment": f"{name}{known.options}"}
    return {**about, "showed": showed, "seconds": seconds(known)}


def seconds(variant: Variant) -> float | None:
    """That a seed took."""
    runs = [variant.kept.of(variant.preset, variant.domain, pilot=pilot) for pilot in (False, True)]
    return next((run.seconds for run in runs if run is not None and run.seconds is not None), None)


def catalogue_text() -> str:
    """The catalogue as a table by algorithm, and its names by skill and by vertical."""
    found = catalogue()
    lines = [
        (
            f"`{one['name']}`", one["algorithm"], one["skill"], one["vertical"], one["access"],
            "the student's" if one["same_tokenizer"] else "any", one["needs"], one["hardware"] or "-", one["costs"],
            "-" if one["seconds"] is None else f"{one['seconds']:.0f} s", one["showed"]["verdict"],
        )
        for one in sorted(found["recipes"], key=lambda one: (one["algorithm"], one["name"]))
    ]  # fmt: skip
    parts = [markdown(CATALOGUE, lines)]
    for axis in ("skill", "vertical"):
        groups = sorted(found[f"by_{axis}"].items())
        parts.append(markdown((axis, "methods"), [(group, ", ".join(sorted(names))) for group, names in groups]))
    return "\n\n".join(parts)


def text() -> str:
    """What the results say of the methods."""
    more = list(further())
    table = markdown(HEAD, rows())
    return f"{table}\n\nFurther claims of experiments that were run:\n\n{markdown(MORE, more)}" if more else table


PAGES: Mapping[str, Callable[[], str]] = {"results.md": text, "recipes.md": catalogue_text}
"""Page -> what stands between its marks."""


def written(page: str, part: str) -> str:
    """The page with a part as it is now. Raises `DistillError` for a page without one begin and one end."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(END) < page.index(BEGIN):
        raise DistillError(f"a page needs '{BEGIN}' and, after it, '{END}'")
    return f"{page[: page.index(BEGIN)]}{BEGIN}\n{part}\n{page[page.index(END) :]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder of a run whose figures are kept first")
    parser.add_argument("--rule", help="the commit that fixed its claims before it ran")
    parser.add_argument("--pilot", action="store_true", help="all of its seeds are a pilot's")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    asked = parser.parse_args(arguments)
    try:
        if (asked.keep is None) != (asked.rule is None):
            raise DistillError("--keep and --rule belong together")
        if asked.keep is not None:
            keep(asked.keep, asked.rule, pilot=asked.pilot)
            best.cache_clear()
        for name, part in PAGES.items():
            page = asked.docs / name
            page.write_text(written(page.read_text(), part()))
    except (DistillError, OSError, UnicodeDecodeError) as error:
        print(f"standing: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
