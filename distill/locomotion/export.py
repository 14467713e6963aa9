"""`barkour export`: what a folder holds decides how it is exported. Light to import."""

from distill.locomotion.options import is_run
from policies.learning.options import ExportOptions
from policies.learning.results import Exported
from sim.robots.description import find_robot


def export(options: ExportOptions) -> Exported:
    """Exports a run of `distill locomotion`, or what `policies.learning` trained."""
    if options.robot is not None:
        find_robot(options.robot)  # which makes it known by its name
    if options.checkpoint.suffix == ".onnx":
        return _again(options)
    if is_run(options.checkpoint):
        from distill.locomotion.recipe import export_run

        return Exported.of(export_run(options.checkpoint, options.file, options.force, options.target_step))
    from policies.learning.export import export as export_specialist

    return export_specialist(options)


def _again(options: ExportOptions) -> Exported:
    """Writes a bundle anew, with the options' step where they have one."""
    from policies.bundle.reader import Bundle
    from policies.bundle.writer import rewrite

    rewrite(options.checkpoint, options.file, options.force, **options.changes)
    return Exported.of({**Bundle.load(options.file).describe(), "parity": 0.0})
