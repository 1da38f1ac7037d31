"""What is shown at the end of a training on one's own data: pictures, errors, what to do next."""

from __future__ import annotations

from pathlib import Path

from schnet.data.store import Store
from schnet.files import atomic
from schnet.models.registry import model_class
from schnet.own.choices import SETTINGS
from schnet.run import Run, RunSpec


def draw(run: Run) -> None:
    """learning.png and parity.png, in the folder."""
    from matplotlib import rc_context

    from schnet.figures import predicted_true, style, training_curves
    from schnet.figures.results import predictions

    size = {"width": 3.6, "height": 3.0}
    with rc_context(style.settings()):
        learning, (ax,) = style.panels(1, columns=1, **size)
        training_curves.panel(ax, [run])
        ax.set(xlabel="step", ylabel="validation loss (dot: its minimum)")
        quantities = [run.settings.target, run.settings.forces]
        shown = [name for name in quantities if name is not None]
        parity, axes = style.panels(len(shown), columns=2, **size)
        for ax, quantity in zip(axes, shown, strict=True):
            ax.set_title(quantity)
            found = predictions(run, forces=quantity == run.settings.forces)
            if found is None:
                style.empty(ax, "no test part")
            else:
                predicted_true.panel(ax, found, predicted_true.OPTIONS)
        for name, picture in {"learning": learning, "parity": parity}.items():
            with atomic(run.folder / f"{name}.png") as temporary:
                picture.savefig(temporary)


def tell(
    out: Path, metrics: dict, parts: dict, store: Store, spec: RunSpec, unit: str | None
) -> None:
    """Errors, and what to do with the model."""
    sizes = ", ".join(f"{len(indices):,} {part}" for part, indices in parts.items())
    print(f"\n{store.path}: {sizes}; {spec.steps:,} steps")
    for part, values in metrics["parts"].items():
        for quantity, v in values.items():
            print(
                f"{part:12} {quantity:12} MAE {v['mae']:.4g}, RMSE {v['rmse']:.4g} {v['unit']}"
                f" ({v['n']:,} values)"
            )
    model = out / "model.pt"
    print(f"\nlearning curve and predictions: {out / 'learning.png'}, {out / 'parity.png'}")
    again = (
        f"schnet train {out / SETTINGS} --data {store.path} --split {out / 'split.npz'} -o OTHER"
    )
    print(f"settings, to be changed and trained again: {again}")
    labels = "" if unit is None else f" --unit {unit}"
    print(f"  schnet predict {model} STRUCTURES -o predicted.extxyz{labels}")
    if spec.forces and model_class(spec.architecture).invariant:
        print(f"  schnet md STRUCTURE {model} -o FOLDER --steps 2000    also: relax, modes, pimd")
        print(f'  from schnet import SchNetCalculator; atoms.calc = SchNetCalculator("{model}")')
