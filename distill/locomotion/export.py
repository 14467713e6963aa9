"""`barkour export`: what a folder holds decides how it is exported. Light to import."""

from dataclasses import replace
from pathlib import Path

from distill.locomotion.options import is_run
from policies.learning.options import ExportOptions
from policies.learning.results import Exported
from sim.robots.description import find_robot


def export(options: ExportOptions) -> Exported:
    """Exports a run of `distill locomotion`, or what `policies.learning` trained."""
    if options.robot is not None:
        find_robot(options.robot)  # which makes it known by its name
    if options.checkpoint.suffix == ".onnx":
        return _again(options.checkpoint, options)
    if is_run(options.checkpoint):
        from distill.locomotion.recipe import export_run

        found = Exported.of(export_run(options.checkpoint, options.file, force=options.force))
    else:
        from policies.learning.export import export as export_specialist

        found = export_specialist(options)
    if options.target_step is None:
        return found
    again = _again(options.file, replace(options, force=True))
    return Exported.of({**found.to_dict(), **again.to_dict(), "parity": found.parity})


def _again(bundle: Path, options: ExportOptions) -> Exported:
    """Writes a bundle anew, with the options' step where they have one."""
    from policies.bundle.reader import Bundle
    from policies.bundle.writer import rewrite

    changes = {} if options.target_step is None else {"target_step": options.target_step or None}
    rewrite(bundle, options.file, options.force, **changes)
    return Exported.of({**Bundle.load(options.file).describe(), "parity": 0.0})
