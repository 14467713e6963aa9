"""`barkour distill locomotion`: walk, climb and jump specialists into one Locomotion-Transformer in one ONNX file.

Behavioural cloning on what the specialists do on their own grounds and on the course, then rounds in which the student
drives more and more and the specialists say what they would have done (DAgger). What each batch is made of follows
where the student's performance lags (DDK); the course score picks the best student and watches for teacher hacking.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from distill.core.checkpoints import plain, write_json
from distill.core.collect import Collector, Student
from distill.core.errors import DistillError
from distill.core.journal import Journal
from distill.core.loop import Distiller, LoopConfig, load_best, load_last
from distill.core.objectives.actions import SquaredError
from distill.core.reading import read_json
from distill.core.schedules import Beta
from distill.core.shards import Shards
from distill.core.teachers import RecordedActions
from distill.locomotion.course import AnywhereCollector, CourseCollector, Robots, between_obstacles, course_score
from distill.locomotion.experience import Windows
from distill.locomotion.options import OPTIONS, Options, is_run
from distill.locomotion.student import TransformerStudent
from distill.locomotion.tasks import TaskCollector
from distill.results import Distilled
from policies.learning import runs
from policies.skills.library import Skills, load_skills
from policies.transformer import TransformerConfig
from policies.transformer_export import export_transformer
from policies.transformer_import import read_config, read_transformer
from sim.course.description import SKILLS
from sim.course.files import by_name
from sim.errors import InputError
from sim.folders import alone
from sim.options import words_of
from sim.robots.description import Robot, find_robot

if TYPE_CHECKING:
    from distill.locomotion.fine_tuning import FineTuning

FREE = ("out", "resume", "force", "run", "threads", "patience")
"""Options that may change when a run is resumed, and that do not decide its result."""
CRITIC_RATE = 30.0
"""Times the student's learning rate at which the critic of fine-tuning learns: it begins from nothing."""
SIZES = ("context", "width", "layers")
"""Options of the network."""


def distil(options: Options) -> Distilled:
    """Runs or continues the recipe and writes the best student as a bundle.

    Returns:
      The loop's summary, the data card and what the exporter measured. `interrupted` where Ctrl-C ended it.

    Raises:
      InputError: unusable options, teachers or folder.
    """
    file = options.out or options.run / "generalist.onnx"
    if file.exists() and not options.force and not (options.resume and is_run(options.run)):
        raise InputError(f"{file} exists: add --force to replace it")
    source = recorded(options) if options.recordings else simulated(options)
    try:
        with alone(options.run), runs.stopping():
            if options.resume and is_run(options.run):
                options = _compare(options)
            options = sized(options)
            distiller, _ = build(options, source)
            if not (options.resume and is_run(options.run)):
                runs.say_begun(options.resume, options.run)
                _remember(options, source)
            summary = distiller.run()
    except DistillError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"cannot write to {options.run}: {error.strerror}") from error
    if summary["interrupted"]:
        return Distilled.of({**summary, "run": str(options.run)})
    result = {**summary, **export_run(options.run, file, force=True)}
    Journal(options.run).summary(result)
    return Distilled.of(result)


def export_run(run: Path, file: Path, force: bool = False, target_step: float | None = None) -> dict[str, Any]:
    """Writes the best student of a run as a bundle.

    Args:
      target_step: largest change of a joint target in a control step, rad; 0: none, without it the run's.

    Returns:
      `bundle`, `parity`, `rounding`, `parameters`, the data `card` and what was measured of the `best` student.

    Raises:
      InputError: no such run, no measured student or no summary in it, a damaged file, or `file` exists.
    """
    options, made_at = _recall(run)
    robot, ranges = _driven(options)
    student = _student(options, robot)
    try:
        best = (load_best if options.keep == "best" else load_last)(run, student)
        if not (run / "summary.json").is_file():
            raise InputError(f"the run {run} was killed and has no summary: --resume it, to its end or up to Ctrl-C")
        summary = read_json(run / "summary.json")
        shards = Shards(run / "data")
        card = shards.card(robot.control_period)
        seen = observations(shards, student.module.config.context, 500)
    except (DistillError, OSError) as error:
        raise InputError(f"the run {run} cannot be exported: {error}") from error
    exported = export_transformer(
        student.module, file, robot=robot, force=force, recorded=seen, command_ranges=ranges,
        provenance=provenance(options, robot, made_at, summary, best, card),
        target_step=student.target_step if target_step is None else target_step or None,
    )  # fmt: skip
    kept = {name: exported[name] for name in ("parity", "rounding", "parameters", "bytes", "target_step")}
    return {"bundle": str(file), **kept, "best": best, "card": card}


def _remember(options: Options, source: "Source") -> None:
    values = {"options": plain(asdict(options)), "commit": runs.commit(), **source.about}
    write_json(options.run / OPTIONS, values)


def _compare(options: Options) -> Options:
    """The options of a run that is resumed, with the sizes that it has. Raises `InputError` where it was begun with
    other ones."""
    kept = _recall(options.run)[0]
    unsaid = {name: getattr(kept, name) for name in SIZES if getattr(options, name) is None}
    options = replace(options, **unsaid)
    begun = plain(asdict(kept))
    for name, value in plain(asdict(options)).items():
        if name not in FREE and begun[name] != value:
            raise InputError(f"{options.run} was begun with {name} {begun[name]}, not {value}")
    return options


def sized(options: Options) -> Options:
    """The options with every one of `SIZES`: what is not asked for is as in the bundle that the student begins with, or
    as in a `TransformerConfig`."""
    unsaid = [name for name in SIZES if getattr(options, name) is None]
    if not unsaid:
        return options
    known = TransformerConfig() if options.start_from is None else read_config(options.start_from)
    return replace(options, **{name: getattr(known, name) for name in unsaid})


def _driven(options: Options) -> tuple[Robot, dict[str, list[float]]]:
    """The robot of a run and the commands that its student knows."""
    if options.recordings is None:
        teachers = load_skills(options.teachers, options.robot)
        return teachers.robot, _ranges(teachers)
    try:
        about = read_json(options.run / OPTIONS)
        return find_robot(about["robot"]), about["command_ranges"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{options.run} does not say what its recordings were of: {error}") from error


def _recall(run: Path) -> tuple[Options, str]:
    try:
        values = read_json(run / OPTIONS)
        kept = dict(values["options"])
        kept["courses"] = tuple(kept["courses"])
        kept |= {"run": run, "out": _path(kept["out"]), "start_from": _path(kept.get("start_from"))}
        kept["recordings"] = _path(kept.get("recordings"))
        return Options(**kept), values["commit"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run} holds no run of this recipe: {error}") from error


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _network(options: Options, robot: Robot) -> TransformerConfig:
    sizes = {name: getattr(options, name) for name in SIZES}
    return TransformerConfig(joints=robot.joints, clock=options.recordings is None, **sizes)


def _student(options: Options, robot: Robot) -> TransformerStudent:
    return TransformerStudent(_network(options, robot), options.seed, target_step=options.target_step or None)


def _begun(options: Options, robot: Robot) -> TransformerStudent:
    """A new student, or an earlier one where the options name one."""
    if options.start_from is None:
        return _student(options, robot)
    start, asked = read_transformer(options.start_from), _network(options, robot)
    if replace(start.config, context=asked.context) != asked or asked.context > start.config.context:
        raise InputError(
            f"{options.start_from} has a context of {start.config.context}, a width of {start.config.width} and "
            f"{start.config.layers} layers: --width and --layers must be as it has them, --context not above it"
        )
    if asked.context < start.config.context:
        start = start.shortened(asked.context)
    return TransformerStudent(start.config, options.seed, start, options.target_step or None)


@dataclass(frozen=True)
class Source:
    """Where experience comes from, and how the student is measured."""

    robot: Robot
    collectors: Sequence[Collector]
    measure: Callable[[Student], dict[str, float]] | None
    """None: by its error on what is held out."""
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    """For the run's folder, JSON-ready."""
    fine_tuning: "Callable[[TransformerStudent], FineTuning] | None" = None
    """In place of imitation."""


def simulated(options: Options) -> Source:
    """The specialists in simulation, on their own grounds and on courses.

    Raises:
      InputError: unknown courses or teachers, or teachers that lack a skill.
    """
    teachers = load_skills(options.teachers, options.robot)
    missing = [skill for skill in SKILLS if skill not in teachers.able]
    if missing:
        raise InputError(f"the teachers '{options.teachers}' have no policy for {', '.join(missing)}")
    courses = [by_name(name) for name in options.courses]
    robots = [Robots()]
    robots += [Robots(options.weak)] if options.weak else []
    robots += [Robots(randomize=False)] if options.nominal else []
    if options.fine_tune:
        from distill.locomotion.fine_tuning import FineTuning

        measure = course_score(teachers, courses[0], options.score_runs, 1000, options.start_from)
        return Source(
            teachers.robot, (), measure,
            fine_tuning=lambda student: FineTuning(student, teachers, courses, robots, options),
        )  # fmt: skip
    collectors: Sequence[Collector] = [
        CourseCollector(teachers, courses, robots, options.threads),
        *([between_obstacles(teachers, options.between, robots, options.threads)] if options.between else []),
        *([AnywhereCollector(teachers, courses, robots, options.threads)] if options.anywhere else []),
        *(TaskCollector(skill, teachers, options.threads) for skill in SKILLS),
    ]
    return Source(teachers.robot, collectors, course_score(teachers, courses[0], options.score_runs, 1000))


def recorded(options: Options) -> Source:
    """Recordings of runs and nothing else; `courses` has the map of those that hold none.

    Raises:
      InputError: no recordings, or some that cannot be learned from.
    """
    from distill.locomotion.recordings import RecordingCollector, logs_below, read_log, robot_of

    assert options.recordings is not None
    paths = logs_below(options.recordings)
    robot = robot_of(paths, options.robot)
    course = options.courses[0] if options.courses != Options().courses else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        read = [read_log(path, robot, course) for path in progress.track(paths, description="reading recordings")]
    logs = [log for log in read if log is not None]
    if not logs:
        raise InputError(f"no recording in {options.recordings} holds half a second of a policy that runs")
    if sum(len(log.episodes) for log in logs) < 2:
        raise InputError(
            f"the recordings in {options.recordings} hold one run without a gap: two are needed, one of which is never "
            "trained on"
        )
    collector = RecordingCollector(logs)
    sums = {str(log.path.relative_to(options.recordings)): log.sha256 for log in logs}
    about = {"robot": robot.name, "command_ranges": collector.command_ranges(), "recordings_sha256": sums}
    return Source(robot, [collector], None, about)


def _ranges(teachers: Skills) -> dict[str, list[float]]:
    return teachers.bundles[teachers.uses["walk"]].metadata.command_ranges


def build(options: Options, source: Source) -> tuple[Distiller, TransformerStudent]:
    """The loop and the student, fresh or restored."""
    options = sized(options)
    student = _begun(options, source.robot)
    context = student.module.config.context
    config = LoopConfig(
        rounds=0 if options.recordings else options.rounds,
        first_rows=options.first_rows, rows=options.rows, first_steps=options.first_steps,
        steps=options.steps, batch=options.batch, learning_rate=options.learning_rate,
        average=options.average, learned_rate=CRITIC_RATE if options.fine_tune else 1.0,
        beta=Beta(0.0 if options.fine_tune else 1.0, options.beta_decay),
        smoothing=options.smoothing, patience=options.patience, precision=options.precision, seed=options.seed,
    )  # fmt: skip
    loop = options.run, config, source.measure, options.resume, Console(stderr=True)
    if source.fine_tuning is not None:
        tuning = source.fine_tuning(student)
        distiller = Distiller(tuning.student, tuning.objective, tuning.teacher, [tuning], tuning.sampler, *loop)
    else:
        distiller = Distiller(student, SquaredError(), RecordedActions(), source.collectors, Windows(context), *loop)
    return distiller, student


def provenance(
    options: Options, robot: Robot, commit: str, summary: dict[str, Any], best: dict[str, Any], card: dict[str, Any]
) -> dict[str, Any]:
    """What the bundle says about how it was made."""
    return {
        "command": command(options),
        "seed": options.seed,
        "commit": commit,
        "teachers": f"recordings in {options.recordings.name}" if options.recordings else options.teachers,
        "network": _network(options, robot).to_dict(),
        "steps": summary["steps"],
        "best": best,
        "data": {key: card[key] for key in ("episodes", "hours", "rows")},
        "minutes": summary["minutes"],
    }


def command(options: Options) -> str:
    """The command that makes this run's result from nothing."""
    return shlex.join(["barkour", "distill", "locomotion", *words_of(options, FREE)])


def observations(shards: Shards, context: int, count: int) -> np.ndarray:
    """Observations that robots made in a run, `[count, layout.size]`, as the bundle's graph takes them."""
    rng = np.random.default_rng(0)
    domains = sorted({shard.about["domain"] for shard in shards.shards})
    counts = {name: count // len(domains) + (k < count % len(domains)) for k, name in enumerate(domains)}
    batch = Windows(context).sample(shards, rng, counts)
    order = rng.permutation(count)
    frames = batch["frames"].flip(1).flatten(1).numpy()[order]
    return np.concatenate([frames, batch["heights"][:, -1].numpy()[order]], 1)
