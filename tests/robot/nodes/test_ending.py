"""Reports that cannot be written are refused before any work."""

import pytest

from robot.nodes.ending import check_report, write_report
from robot.options import UnitreeSimOptions
from robot.transports.unitree import simulated
from sim.errors import InputError


def test_a_report_is_refused_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for bad in (tmp_path, tmp_path / "file" / "report.json", "/dev/null/report.json"):
        with pytest.raises(InputError, match="cannot write"):
            check_report(bad)
    check_report(None)
    check_report("")
    check_report(tmp_path / "new" / "report.json")
    write_report(tmp_path / "new" / "report.json", {"score": float("nan")})
    assert (tmp_path / "new" / "report.json").read_text() == '{\n  "score": null\n}\n'


def test_a_simulated_robot_does_not_start_where_it_could_not_report(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "Claim", lambda *_: pytest.fail("it had begun"))
    with pytest.raises(InputError, match="cannot write"):
        simulated.unitree_sim(UnitreeSimOptions(out=tmp_path))
