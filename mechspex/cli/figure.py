"""``mechspex figure``: the figures of the literature, measured again."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.output import EXPERIMENT, OUTPUT, Json, print_answer, refuse_unwritable, writing
from mechspex.core.errors import Refused
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.paper_figure import PaperFigure


def figure(
    name: Annotated[
        str | None, typer.Argument(help="A figure of the list; the list itself if not given.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model, where the figure has one; smollm2-135m if not given.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task, where the figure has one.", rich_help_panel=EXPERIMENT),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="The paper's size, of an hour.", rich_help_panel=EXPERIMENT),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(help="Seed of masks, prompts and decoders.", rich_help_panel=EXPERIMENT),
    ] = 0,
    run: Annotated[
        str | None,
        typer.Option(
            help="Where values are kept, so that the same command goes on.", rich_help_panel=OUTPUT
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder for figure.png, figure.svg, table.csv and numbers.txt; that of the "
            "run if not given.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the figures of the literature, or measure one of them again."""
    if name is None:
        rows = [_row(one) for one in FIGURES.values()]
        print_answer(rows if as_json else _listed(rows), as_json)
        return
    if name not in FIGURES:
        near = get_close_matches(name.lower(), FIGURES, 1)
        slip = f"did you mean {near[0]!r}? Else " if near else ""
        raise Refused(f"no figure {name!r}; {slip}choose {', '.join(FIGURES)}")
    if out is not None:
        refuse_unwritable(out.parent / "figure.png" if not out.exists() else out / "figure.png")
    found = _measured(FIGURES[name], model, task, full, seed, run or _run(name, full))
    folder = out
    if folder is None:
        from mechspex.runs.run import run_folder

        folder = run_folder(run or _run(name, full))
    else:
        with writing():
            found.write(folder)
    print_answer(
        found.to_dict() if as_json else f"{found}\n\npicture {folder / 'figure.png'}", as_json
    )


def _run(name: str, full: bool) -> str:
    return f"figure-{name}" + ("-full" if full else "")


def _measured(
    asked: PaperFigure, model: str | None, task: str | None, full: bool, seed: int, run: str
) -> Any:
    import mechspex.experiments

    experiment = getattr(mechspex.experiments, asked.function)
    return experiment(model=model, task=task, full=full, seed=seed, run=run, progress=True)


def _row(one: PaperFigure) -> dict[str, Any]:
    from mechspex.experiments.experiment import done
    from mechspex.runs.run import run_folder

    small, full = one.minutes
    return {
        "figure": one.name,
        "shows": one.title,
        "paper": one.paper,
        "minutes": small,
        "minutes_full": full,
        "drawn": [size for size in (False, True) if done(run_folder(_run(one.name, size)))],
    }


def _listed(rows: list[dict[str, Any]]) -> str:
    """The figures by paper."""
    lines: list[str] = []
    for paper in dict.fromkeys(row["paper"].split(",")[0] for row in rows):
        lines += [paper]
        for row in rows:
            if row["paper"].split(",")[0] == paper:
                drawn = {False: "drawn", True: "drawn in full"}
                told = ", ".join(drawn[size] for size in row["drawn"])
                lines += [
                    f"  {row['figure']:15}{row['shows']:50}{row['minutes']:>5g} min, "
                    f"--full {row['minutes_full']:g}   {told}".rstrip()
                ]
    return "\n".join(lines)
