"""`barkour export`: what a folder holds decides how it is exported. Light to import."""

from importlib.util import find_spec

import numpy as np

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
    """Writes a bundle anew, with the options' step where they have one; a Transformer in its form of today, which may
    take less time in a control step."""
    from policies.bundle.reader import Bundle
    from policies.bundle.writer import rewrite

    before, graph = Bundle.load(options.checkpoint), None
    if before.metadata.skill == "generalist" and find_spec("torch"):
        from policies.transformer_import import graph_of_today

        graph = graph_of_today(options.checkpoint)
    rewrite(options.checkpoint, options.file, options.force, graph, **options.changes)
    after, seen = Bundle.load(options.file), np.asarray(before.metadata.golden["observation"], np.float32)
    return Exported.of({**after.describe(), "parity": float(np.abs(after(seen) - before(seen)).max())})
