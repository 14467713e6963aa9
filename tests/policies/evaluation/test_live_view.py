"""The live view: every geom of any robot and course is drawn where MuJoCo has it, and a real browser shows it."""

import io
import shutil
import socket
import sys
import threading
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

import barkour
from policies.evaluation.course_run import CourseWorlds
from policies.evaluation.live_view import Viewer
from policies.evaluation.options import CourseRunOptions
from policies.skills.library import load_skills
from sim.course.description import official
from sim.course.files import by_name
from sim.course.scene import course_model
from sim.errors import InputError
from sim.robots.description import find_robot

WAY = np.array([[0.0, 0.0, 0.0], [1.0, 0.5, 0.0], [2.0, 0.0, 0.1]])


@pytest.fixture
def viz() -> None:
    """The viz extra."""
    pytest.importorskip("mjviser", reason="the viz extra is not installed")


def test_without_the_extra_it_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mjviser", None)
    assert barkour.main(["run", "--watch"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def vertices(viewer: Viewer) -> np.ndarray:
    """Corners of every mesh that is drawn, in the world's frame, m `[N, 3]`."""
    scene, found = viewer.scene, []
    groups = [(group.handle, group.body_ids) for group in scene._mesh_groups]
    for handle, bodies in groups:
        assert handle.visible
        mesh = trimesh_of(handle)
        for body in bodies:
            found.append(mesh @ viewer.data.xmat[body].reshape(3, 3).T + viewer.data.xpos[body])
    for handle in scene._fixed_geom_handles.values():
        assert handle.visible
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, np.array(handle.wxyz, float))
        found.append(trimesh_of(handle) @ turn.reshape(3, 3).T + handle.position)
    return np.concatenate(found)


def trimesh_of(handle) -> np.ndarray:
    """The corners that a handle's GLB holds."""
    import trimesh

    loaded = trimesh.load(io.BytesIO(handle.glb_data), file_type="glb")
    return np.asarray(loaded.to_mesh().vertices)


def extent(model, data, geom: int) -> np.ndarray | None:
    """The geom's corners along its own axes, in the world's frame, `[6, 3]`; None for a plane."""
    kinds, kind, size = mujoco.mjtGeom, int(model.geom_type[geom]), model.geom_size[geom]
    if kind == int(kinds.mjGEOM_PLANE):
        return None
    if kind == int(kinds.mjGEOM_BOX):
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).T.reshape(-1, 3)
        ends = signs * size
    elif kind == int(kinds.mjGEOM_SPHERE):
        ends = np.array([[0, 0, size[0]], [0, 0, -size[0]]])
    else:
        long = size[1] + (size[0] if kind == int(kinds.mjGEOM_CAPSULE) else 0.0)
        ends = np.array([[0, 0, long], [0, 0, -long]])
    return ends @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]


@pytest.mark.parametrize("robot", ["barkour_v0", "unitree_go2"])
@pytest.mark.parametrize("course", ["official", "generated:3"])
def test_every_geom_is_drawn_where_mujoco_has_it(viz, robot, course):
    model = course_model(by_name(course), find_robot(robot))
    viewer = Viewer(model, WAY, port=0)
    try:
        qpos = model.qpos0 + np.random.default_rng(0).normal(0.0, 0.1, model.nq)
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
        viewer.draw(qpos, 1.0, (0.5, 0.0, 0.1), {"score": "0.5"})
        drawn = vertices(viewer)
        for geom in range(model.ngeom):
            ends = extent(model, viewer.data, geom)
            if ends is None:
                continue
            near = np.linalg.norm(drawn[None] - ends[:, None], axis=2).min(axis=1)
            assert near.max() < 2e-3, (model.geom(geom).name, near)
        assert "1.00 s" in viewer.text.content and "0.5" in viewer.text.content
        np.testing.assert_allclose(viewer.path.points[:, 0, :2], WAY[:-1, :2], atol=1e-6)
        begin, end = viewer.command.points[0]
        heading = viewer.data.body(1).xmat.reshape(3, 3)[:2, 0]
        assert (end - begin)[:2] @ heading > 0.1 and begin[2] > qpos[2]
    finally:
        viewer.close()


def test_it_listens_on_this_computer_alone_unless_asked(viz, capsys):
    model = course_model(official(), find_robot("barkour_v0"))
    viewer = Viewer(model, WAY, port=0)
    try:
        port, address = viewer.server.get_port(), viewer.server.get_host()
        assert address == "127.0.0.1" and str(port) in viewer.address
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
        for other in others:
            with pytest.raises(OSError), socket.create_connection((other, port), timeout=5):
                pass
    finally:
        viewer.close()
    with pytest.raises(InputError):
        Viewer(model, WAY, listen="192.0.2.1")  # kept for documentation: no computer has it
    for words in (["--listen", "0.0.0.0"], ["--watch", "--listen", "nowhere"]):
        assert barkour.main(["run", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(InputError):
        CourseRunOptions(listen="0.0.0.0")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium without a GPU."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()


HEIGHT, WIDTH = 120, 160


def seen(model, data, camera, *, course: bool) -> np.ndarray:
    """Which pixels MuJoCo's own rays say the robot, or the course without its floor, covers, bool `[H, W]`."""
    height = 2 * np.tan(camera["fov"] / 2)
    rows = ((np.arange(HEIGHT) + 0.5) / HEIGHT - 0.5) * height
    columns = ((np.arange(WIDTH) + 0.5) / WIDTH - 0.5) * height * WIDTH / HEIGHT
    turn, found = np.zeros(9), np.zeros((HEIGHT, WIDTH), bool)
    mujoco.mju_quat2Mat(turn, camera["wxyz"])  # x right, y down, z ahead
    for i, down in enumerate(rows):
        for j, right in enumerate(columns):
            ray, geom = turn.reshape(3, 3) @ [right, down, 1.0], np.array([-1], np.int32)
            mujoco.mj_ray(model, data, camera["position"], ray, None, int(course), -1, geom)
            found[i, j] = geom[0] >= 0 and model.geom_type[geom[0]] != mujoco.mjtGeom.mjGEOM_PLANE
    return found


def pixel(point, camera) -> tuple[int, int]:
    """Row and column at which a point is seen."""
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, camera["wxyz"])
    x, y, z = turn.reshape(3, 3).T @ (np.asarray(point, float) - camera["position"])
    scale = HEIGHT / (2 * np.tan(camera["fov"] / 2)) / z
    return int(HEIGHT / 2 + y * scale), int(WIDTH / 2 + x * scale)


@pytest.mark.slow
def test_a_browser_shows_the_robot_and_the_course_as_mujoco_sees_them(viz, browser):
    worlds = CourseWorlds(official(), load_skills("generalist"), [0])
    for _ in range(60):
        worlds.step()
    qpos, model = np.array(worlds.robots.physics.qpos[0]), worlds.robots.model
    viewer = Viewer(model, worlds.way(), port=0)
    try:
        page = browser.new_page(viewport={"width": 240, "height": 180})
        page.goto(viewer.address)
        page.wait_for_function("document.body.innerText.includes('Connected')", timeout=120_000)
        viewer.draw(qpos, worlds.time, worlds.traces[0].command[-1], worlds.seen(0))
        for words in ("1.20 s", "gates", "walk"):
            page.get_by_text(words).first.wait_for(timeout=60_000)
        (client,) = viewer.server.get_clients().values()
        base = qpos[:3]
        eye = base + (1.5, 1.2, 1.0)
        ahead = (base - eye) / np.linalg.norm(base - eye)
        right = np.cross(ahead, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(ahead, right), ahead], 1).ravel())
        camera = {"wxyz": quat, "position": eye, "fov": 0.9}

        def picture() -> np.ndarray:
            """What the browser draws, `[H, W, 4]`."""
            result: list[np.ndarray] = []
            shifted = camera | {"position": eye - base}  # the view keeps the robot in the middle
            work = threading.Thread(
                target=lambda: result.append(client.get_render(HEIGHT, WIDTH, **shifted, transport_format="png"))
            )
            work.start()
            while work.is_alive():
                page.wait_for_timeout(20)
            return result[0]

        def show(*, lines: bool, robot: bool, course: bool) -> np.ndarray:
            """Which pixels are covered when only some parts of the scene are shown, bool `[H, W]`."""
            viewer.path.visible = viewer.command.visible = lines
            for group in viewer.scene._mesh_groups:
                group.handle.visible = robot
            for handle in viewer.scene._fixed_geom_handles.values():
                handle.visible = course
            return picture()[:, :, 3] > 127

        viewer.server.scene.remove_by_name("/fixed_bodies/world/floor")
        covered = show(lines=True, robot=False, course=False)
        arrow = viewer.command.points[0].mean(axis=0)
        near = viewer.path.points[np.linalg.norm(viewer.path.points[:, 0] - base, axis=1) < 0.8, 0]
        assert len(near) > 5
        for point in [arrow, *near[::3]]:
            row, column = pixel(point, camera)
            if 2 <= row < HEIGHT - 2 and 2 <= column < WIDTH - 2:
                assert covered[row - 2 : row + 3, column - 2 : column + 3].any(), point
        data = viewer.data
        mujoco.mj_forward(model, data)
        for part in ("robot", "course"):
            covered = show(lines=False, robot=part == "robot", course=part == "course")
            wanted = seen(model, data, camera, course=part == "course")
            assert wanted.sum() > 300 and (covered & wanted).sum() / (covered | wanted).sum() > 0.9, part
            data.qpos[2] += 100.0  # out of the rays' way
            mujoco.mj_forward(model, data)
    finally:
        viewer.close()
