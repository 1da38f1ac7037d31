"""`schnet plan`: what a scale costs."""

import re
import shutil

import numpy as np
import pytest
from finished_runs import finish, open_project, runs_of, write_methods_table

from schnet import provenance
from schnet.errors import ConfigError
from schnet.files import read_yaml, write_yaml
from schnet.plan import show, timing
from schnet.plan.kinds import kind_of


def test_plan_counts_runs_and_says_what_is_not_known(workflow, tmp_path, capsys):
    project = open_project(workflow, tmp_path, "paper")
    show(project)
    out = capsys.readouterr().out
    names = project.experiments_in_order()  # the paper's tables first
    assert names[0] == "table_1"
    for name in ("table_1", "table_4_larger"):
        before = names[: names.index(name)]
        counted = {run.path for earlier in before for run in project.runs_of(earlier)}
        new = [run for run in project.runs_of(name) if run.path not in counted]
        steps = f"{sum(run.settings.steps for run in new):,}"
        known = rf"{name} +{len(new)} +0 +{steps} +unknown +unknown"
        assert re.search(rf"{known} .*{len(new)} runs of \d+ kinds", out)
    assert 0 < len(new) < len(project.runs_of("table_4_larger"))
    assert "there are no finished runs" in out
    assert re.search(r"c20_dynamics +5 +0 +77,500,000 +60.00", out)
    seconds = {"steps": 1000, "training_seconds": 36.0, "hardware": provenance.hardware()}
    new = project.runs_of("table_1")
    finish(next(run for run in new if run.settings.target == "U"), result=seconds)
    # 36 s for a thousand steps: a hundred hours for each run of that kind
    kind = [
        run
        for run in new
        if run.settings.architecture == "schnet" and run.settings.model.get("readout") != "mean"
    ]
    same = [run for run in kind if run.settings.model.get("readout") != "dipole"]
    show(project)
    out = capsys.readouterr().out
    assert len(same) > 10
    # one of them is finished
    hours, left = f"{len(same)}00.00", f"{len(same) - 1}00.00"
    assert re.search(rf"table_1 +{len(new)} +1 .* {hours} +{left} .*unknown", out)
    assert re.search(r"qm9 .*T=6 F=64 sum +one property 0.03600 s", out)
    assert re.search(r"qm9 .*T=6 F=64 dipole one property unknown", out)  # a kind of its own


def test_plan_of_some_experiments(workflow, tmp_path, capsys):
    project = open_project(workflow, tmp_path)
    show(project, ["table_2", "rho_md17"])
    shown = capsys.readouterr().out
    assert re.search(r"^table_2 +12 ", shown, re.M) and re.search(r"^rho_md17 +6 ", shown, re.M)
    assert re.search(r"^all +18 ", shown, re.M) and "table_1" not in shown
    assert "qm9" not in shown and "evaluations" not in shown
    with pytest.raises(ConfigError, match="schnet plan: .*'table_22'; did you mean 'table_2'"):
        show(project, ["table_22"])


def test_plan_does_not_mix_hardware(workflow, tmp_path, capsys):
    """This machine's runs count alone; without them those of one other machine, and it is said."""
    project = open_project(workflow, tmp_path, "paper")
    here, there, faster = (
        {"steps": 1000, "training_seconds": seconds, "hardware": name}
        for seconds, name in ((36.0, provenance.hardware()), (72.0, "Z80"), (7.2, "a big GPU"))
    )
    runs = [runs_of(project, "table_1", row, "schnet")[0] for row in ("U0", "mu")]
    finish(runs[1], result=there)
    show(project)
    out = capsys.readouterr().out
    assert "on other hardware (Z80, 1 threads)" in out and "0.07200 s" in out
    finish(runs[0], result=here)
    show(project)
    out = capsys.readouterr().out
    assert f"finished runs of this machine ({provenance.hardware()}, 1 threads)" in out
    assert "0.03600 s" in out and "0.07200 s" not in out
    # neither runs of a GPU nor of more threads
    finish(runs[0], result=faster, execution={"device": "cuda", "threads": 1})
    finish(runs[1], result=here, execution={"device": "cpu", "threads": 2})
    show(project)
    assert "there are no finished runs" in capsys.readouterr().out


def test_plan_knows_committed_runs_for_what_they_are(workflow, tmp_path, capsys):
    project = open_project(workflow, tmp_path, "paper")
    run = runs_of(project, "table_1", "U0", "schnet")[0]
    name = provenance.hardware()
    finish(run, result={"steps": 1000, "training_seconds": 36.0, "hardware": name})
    results = project.root / project.config["results_dir"]
    committed = results / "replication" / "paper" / "runs" / run.path
    committed.parent.mkdir(parents=True)
    shutil.move(run.folder, committed)
    show(project)
    assert "that came with the repository on other hardware" in capsys.readouterr().out


def test_plan_tells_kinds_of_run_apart():
    run = {"dataset": "qm9", "target": "U0", "model": {"n_interactions": 3}}
    base = kind_of(run)
    assert base == kind_of(run | {"model": {"n_interactions": 3, "n_features": 64}, "seed": 5})
    assert base != kind_of(run | {"model": {"n_interactions": 3, "readout": "dipole"}})
    assert base != kind_of(run | {"forces": "forces"})
    dimenet = run | {"architecture": "dimenet", "model": {"n_blocks": 4}}
    faster = dimenet | {"model": {"n_blocks": 4, "plus_plus": True}}
    assert kind_of(dimenet) != kind_of(faster)
    with pytest.raises(ConfigError, match="no method 'none'"):
        kind_of(run | {"method": "none"})


def test_plan_of_a_method_without_steps(workflow, tmp_path, capsys):
    write_methods_table(workflow)
    project = open_project(workflow, tmp_path)
    run = runs_of(project, "methods", "mean", "mae")[0]
    result = {"seconds": 7200.0, "hardware": provenance.hardware()}
    finish(run, result=result)
    show(project)
    out = capsys.readouterr().out
    assert re.search(r"methods +1 +1 +0 +2.00 +0 ", out)
    assert re.search(r"qm9 +mean +sum +N=10,000 one property 7200.00000 s", out)


def test_plan_measures_where_asked(workflow, tmp_path, capsys, monkeypatch):
    for path in (workflow / "workflow" / "figures").glob("*.yaml"):
        path.unlink()
    for path in (workflow / "workflow" / "simulations").glob("*.yaml"):
        path.unlink()
    for path in (workflow / "workflow" / "experiments").glob("*.yaml"):
        if path.stem != "table_2":
            path.unlink()
    small = workflow / "workflow" / "scales" / "small.yaml"
    write_yaml(small, {k: v for k, v in read_yaml(small).items() if k != "simulations"})
    monkeypatch.setattr(timing, "MADE_UP", 40)
    monkeypatch.setattr(timing, "PATIENCE", 0.5)
    project = open_project(workflow, tmp_path)
    # what a finished run says is not used: all is from here and now
    run = runs_of(project, "table_2", "schnet", "n3000")[0]
    finish(run, result={"steps": 1000, "training_seconds": 9e6, "hardware": provenance.hardware()})
    show(project, measure=True)
    out = capsys.readouterr().out
    assert "measured here and now" in out and "finished runs" not in out
    assert "fits without gradient steps are not timed" in out
    # kernels take no steps: their time is not measured by some of them
    assert "9 runs of 3 kinds unknown" in out
    assert re.search(r"materials_project .* 0.\d+ s", out)


def test_plan_measures_sizes_as_mixed_as_the_data(workflow, tmp_path, monkeypatch):
    """Crystals and QM9 have structures of many sizes, MD17 has one."""
    from schnet.training.loop import Trainer

    monkeypatch.setattr(timing, "PATIENCE", 0.5)
    monkeypatch.setattr(timing, "MADE_UP", 400)
    project = open_project(workflow, tmp_path)
    seen = []
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda t: (seen.append(t), step(t))[1])

    def sizes(experiment, row, column):
        run = runs_of(project, experiment, row, column)[0]
        timing.measure(run, project.sources[run.dataset], 1, "cpu")
        return np.diff(seen[-1].inputs.store.offsets)

    qm9, md17 = sizes("table_1", "mu", "schnet"), sizes("table_3", "ethanol", "both_1000")
    assert abs(qm9.mean() - 18) < 1 and 2 < qm9.std() < 4
    assert set(md17) == {9}


def test_plan_of_a_gpu_that_is_not_there(workflow, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no GPU"):
        show(open_project(workflow, tmp_path), device="cuda")
