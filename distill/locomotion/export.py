"""`barkour export`: what a folder holds decides how it is exported. Light to import."""

from distill.locomotion.options import is_run
from policies.learning.options import ExportOptions
from policies.learning.results import Exported
from sim.robots.description import find_robot


def export(options: ExportOptions) -> Exported:
    """Exports a run of `distill locomotion`, or what `policies.learning` trained."""
    if options.robot is not None:
        find_robot(options.robot)  # which makes it known by its name
    if is_run(options.checkpoint):
        from distill.locomotion.recipe import export_run

        return Exported.of(export_run(options.checkpoint, options.file, force=options.force))
    from policies.learning.export import export as export_specialist

    return export_specialist(options)
