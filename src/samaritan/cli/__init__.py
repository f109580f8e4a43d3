"""The command line. Commands are declared here and import what they need when they run.

Exit codes: 0 done; 1 something was wrong with the input, said in one message on standard error;
2 wrong usage; 3 done, but the mask is empty.
"""

from __future__ import annotations

import typer

from samaritan.cli import (
    bench,
    demo,
    doctor,
    evaluate,
    info,
    models,
    phantom,
    predict,
    prepare,
    segment,
    train,
)

app = typer.Typer(
    name="samaritan",
    help="Segment anything in medical images, in 2D and 3D.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("segment")(segment.segment)
app.command("train")(train.train)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("info")(info.info)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
app.command("phantom")(phantom.make_phantom)
app.add_typer(models.app, name="models")
app.add_typer(prepare.app, name="prepare")


def _show_version(wanted: bool) -> None:
    if wanted:
        from samaritan import __version__

        typer.echo(f"samaritan {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Say more of what happens."),
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    if verbose:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
        for noisy in ("PIL", "matplotlib"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
