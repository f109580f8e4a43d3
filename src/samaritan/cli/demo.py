"""`samaritan demo`: see it work, offline, with the models that come with the package."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

    from samaritan.cli.demo_pointing import Wish
    from samaritan.cli.demo_scenes import Found, Played, Scene, Segmented
    from samaritan.cli.demo_volume import Volumetric

MODEL, MODEL_3D = "samaritan_2d", "samaritan_3d"
"""The models that come with the package: for slices, and for volumes."""

_SCENES, _ENDS = ("scan", "phantom", "volume"), (".nii.gz", "_mask.nii.gz", ".png")
NAMES = (
    *(f"demo_{scene}{end}" for scene in _SCENES for end in _ENDS),
    "demo_session.png",
    "demo_session.json",
    "demo_volume.json",
)
"""All files that a demonstration may leave, beside its note."""


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for masks and pictures.")
    ] = Path("out"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """See it work: segment a real slice, and a phantom in 2D and 3D, with the models that come along.

    Nothing is downloaded. The folder gets images, masks on the images' own grids, and pictures.
    """
    from samaritan.cli.console import bars, warn
    from samaritan.cli.demo_folder import filling
    from samaritan.cli.demo_scenes import computed, play, scan, segment
    from samaritan.cli.demo_volume import computed_volume, segment_volume
    from samaritan.infer import Predictor

    results: dict[str, Any] = {}
    with bars() as report, filling(output, results, NAMES) as folder:
        report("loading the model", 0, 0)
        predictor = Predictor.from_checkpoint(MODEL)
        real, phantom = scan(), computed()
        if real is None:
            warn("this pydicom brings no MR example, so there is a phantom alone")
        done = []
        for scene in (real, phantom):
            if scene is not None:
                report(f"segmenting the {scene.name}", 0, 0)
                done.append(segment(predictor, scene))
        report("playing a session", 0, 0)
        played = play(predictor, phantom)
        report("segmenting the volume", 0, 0)
        deep = segment_volume(Predictor.from_checkpoint(MODEL_3D), computed_volume())
        report("drawing", 0, 0)
        for one in done:
            _write(one, folder)
        _write(deep, folder)
        deep.session.save(folder / "demo_volume.json")
        _write_session(played, folder)
        results |= _results(done, played, deep)
    files = [str(output / name) for name in NAMES if (output / name).exists()]
    if as_json:
        typer.echo(json.dumps({**results, "files": files}))
    else:
        _print(done, played, deep, output, files)


def scene_picture(done: Segmented | Volumetric) -> Figure:
    """The image of a scene with its contours and prompts."""
    from samaritan.cli.demo_pointing import prompts_of
    from samaritan.pictures import draw

    scene = done.scene
    points, boxes = prompts_of(scene.wishes, scene.image)
    return draw(
        scene.image, mask=done.mask, points=points, boxes=boxes, at=scene.at, title=scene.title
    )


def session_picture(played: Played) -> Figure:
    """The steps of a session side by side."""
    import numpy as np

    from samaritan.cli.demo_pointing import prompts_of
    from samaritan.cli.demo_scenes import SESSION_OBJECT, wishes_so_far
    from samaritan.pictures.steps import Step, draw_steps

    scene = played.scene
    assert scene.answer is not None
    inside = scene.reference(SESSION_OBJECT).astype(np.uint8)
    reference = replace(scene.answer, array=inside, names={1: SESSION_OBJECT})
    steps = []
    for number, (session, found, wish) in enumerate(
        zip(played.steps, played.found, wishes_so_far(played), strict=True), 1
    ):
        points, boxes = prompts_of([wish], scene.image)
        again = ", as before" if found.prompt == "undo" else ""
        steps.append(
            Step(
                session.mask,
                f"{number}  {found.prompt}",
                f"Dice {found.dice:.3f}{again}",
                points,
                boxes,
            )
        )
    note = (
        f"{SESSION_OBJECT} of a phantom; yellow: the model's answer, blue: the right one; "
        "green plus: belongs to it, red cross: does not"
    )
    return draw_steps(scene.image, steps, reference=reference, note=note)


def _write(done: Segmented | Volumetric, folder: Path) -> None:
    """Leave image, mask and picture of a scene."""
    from samaritan.io import write
    from samaritan.pictures import save_picture

    name = f"demo_{done.scene.name}"
    write(done.scene.image, folder / f"{name}.nii.gz")
    write(done.mask, folder / f"{name}_mask.nii.gz")
    save_picture(scene_picture(done), folder / f"{name}.png", dpi=110)


def _write_session(played: Played, folder: Path) -> None:
    from samaritan.pictures import save_picture

    played.steps[-1].save(folder / "demo_session.json")
    save_picture(session_picture(played), folder / "demo_session.png", dpi=110)


def _results(done: Sequence[Segmented], played: Played, deep: Volumetric) -> dict[str, Any]:
    scenes = [
        {
            "name": one.scene.name,
            "source": one.scene.source,
            "objects": [asdict(found) for found in one.found],
        }
        for one in done
    ]
    return {
        "model": MODEL,
        "scenes": scenes,
        "session": [asdict(found) for found in played.found],
        "volume": {
            "model": MODEL_3D,
            "name": deep.scene.name,
            "source": deep.scene.source,
            "objects": [asdict(found) for found in deep.found],
        },
    }


def _print(
    done: Sequence[Segmented],
    played: Played,
    deep: Volumetric,
    output: Path,
    files: Sequence[str],
) -> None:
    from rich.console import Console

    from samaritan.cli.demo_scenes import SESSION_OBJECT

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 80)

    def say(text: str) -> None:
        console.print(text, markup=False)

    for one in done:
        say(f"The {one.scene.name} is {one.scene.source}.\n")
        _table(console, "object", [(found.name, found) for found in one.found])
        say("")
    say(f"A session with the {SESSION_OBJECT} of the phantom, each click on what was most wrong:\n")
    _table(console, "step", [(str(n), found) for n, found in enumerate(played.found, 1)])
    say(f"\nThe {deep.scene.name} is {deep.scene.source}.\n")
    _volume_table(console, deep)
    say("\nDice after the first prompt, and after a click on what was most wrong")
    say("quality: what the model itself expects of its mask (IoU)")
    say("\nThe session in Python:\n\n  import samaritan")
    for line in played.lines:
        say("  " + line.replace("{image}", _path(output, "demo_phantom.nii.gz")))
    say("\nOn the command line, and the same with any scan or picture of yours:\n")
    say(f"  {_command(done[0].scene, output, _boxed(done[0].scene))}")
    say(f"  {_command(deep.scene, output, *_few(deep.scene))}")
    say(f"  {_replayed(deep.scene, output)}")
    say(f"\nwritten into {output}: " + ", ".join(Path(file).name for file in files))
    say("look at " + " and ".join(file for file in files if file.endswith(".png")))


def _boxed(scene: Scene) -> Wish:
    """The first object that a box asks for, and nothing but the box."""
    wish = next(wish for wish in scene.wishes if wish.box is not None)
    return replace(wish, name="", clicks=())


def _few(scene: Scene) -> list[Wish]:
    """Two of a volume's objects: the first, and the lesion."""
    return [scene.wishes[0], scene.wishes[-1]]


def _command(scene: Scene, output: Path, *wishes: Wish) -> str:
    """The call that asks for some objects of a scene."""
    image = shlex.quote(_path(output, f"demo_{scene.name}.nii.gz"))
    prompts = [shlex.quote(option) for wish in wishes for option in wish.options]
    return f"samaritan segment {image} -o mask.nii.gz {' '.join(prompts)} --picture look.png"


def _replayed(scene: Scene, output: Path) -> str:
    """The call that asks for all objects of a scene, from its log."""
    image, log = (
        shlex.quote(_path(output, f"demo_{scene.name}{end}")) for end in (".nii.gz", ".json")
    )
    return f"samaritan segment {image} -o mask.nii.gz --session {log} --picture look.png"


def _path(output: Path, name: str) -> str:
    return (output / name).as_posix()


def _table(console: Console, title: str, rows: Sequence[tuple[str, Found]]) -> None:
    from rich.table import Table

    known = any(found.dice is not None for _, found in rows)
    table = Table(box=None, pad_edge=False)
    for name in (title, "prompt"):
        table.add_column(name, no_wrap=True)
    for name in ("pixels", "cm2", "quality", *(["Dice"] if known else []), "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, found in rows:
        cells = [name, found.prompt, f"{found.pixels:,}", f"{found.area_cm2:.1f}"]
        cells.append("" if found.quality is None else f"{found.quality:.2f}")
        cells += ["" if found.dice is None else f"{found.dice:.3f}"] if known else []
        table.add_row(*cells, f"{found.seconds:.2f}")
    console.print(table)


def _volume_table(console: Console, deep: Volumetric) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("object", "prompt", "Dice", "click", "Dice", "voxels", "ml", "quality", "seconds"):
        words = name in ("object", "prompt", "click")
        table.add_column(name, justify="left" if words else "right", no_wrap=True)
    for one in deep.found:
        cells = [one.name, one.prompt, f"{one.dice_first:.3f}", one.correction, f"{one.dice:.3f}"]
        cells += [f"{one.voxels:,}", f"{one.volume_ml:,.1f}"]
        cells.append("" if one.quality is None else f"{one.quality:.2f}")
        table.add_row(*cells, f"{one.seconds:.2f}")
    console.print(table)
