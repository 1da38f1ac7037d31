"""`snakemake --cores all --profile slurm` on a real one-node SLURM on loopback, and accidents."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, copy_small_workflow

from schnet.files import read_yaml, write_yaml
from schnet.project import load_project

pytestmark = pytest.mark.skipif(
    not all(
        shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin")
        for tool in ("slurmctld", "slurmd", "munged", "sbatch")
    ),
    reason="SLURM (slurm-wlm, munge) is not installed",
)
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
TARGETS = ["table_2", "figure_4", "figure_10"]  # every kind of rule
# only the waiting times differ from what a user types
SLURM = ["--profile", "slurm", "--slurm-init-seconds-before-status-checks", "3"]
FAST = ["--latency-wait", "10"]
SINGLE = ["--group-components", "runs=1"]  # a job for every run
PATIENCE = 1800  # seconds until a test gives up: slow machines are no fault


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def cluster():
    """One node with two made-up GPUs, no accounting database, everything as the present user."""
    import getpass
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    user = getpass.getuser()
    (folder / "munge").mkdir(mode=0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge/socket",
        "CredType": "cred/munge",
        "SlurmctldPort": _free_port(),
        "SlurmdPort": _free_port(),
        "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool",
        "SlurmctldPidFile": f"{folder}/slurmctld.pid",
        "SlurmdPidFile": f"{folder}/slurmd.pid",
        "SlurmctldLogFile": f"{folder}/slurmctld.log",
        "SlurmdLogFile": f"{folder}/slurmd.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "MpiDefault": "none",
        "SwitchType": "switch/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "bf_interval=1,sched_interval=1,batch_sched_delay=0",
        "GresTypes": "gpu",
        "ReturnToService": 2,
        # SLURM forgets jobs before Snakemake asks for them, as on some sites
        "MinJobAge": 2,
        # a node that is larger than the machine
        "SlurmdParameters": "config_overrides",
        "EnforcePartLimits": "ALL",
        "KillWait": 2,
        "DefMemPerCPU": 200,
    }
    text = "".join(f"{k}={v}\n" for k, v in settings.items())
    text += f"NodeName={host} NodeAddr=127.0.0.1 CPUs=8 "
    text += "RealMemory=64000 Gres=gpu:2 State=UNKNOWN\n"
    limits = "MaxTime=01:00:00 DefaultTime=00:10:00 State=UP"
    text += f"PartitionName=main Nodes=ALL Default=YES {limits}\n"
    text += f"PartitionName=gpu Nodes=ALL {limits}\n"
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(
        "AutoDetect=off\nName=gpu File=/dev/null\nName=gpu File=/dev/zero\n"
    )
    # the inner srun of a job does not get SLURM_CONF
    (folder / "bin" / "srun").write_text(
        f'#!/bin/sh\nexec env SLURM_CONF={folder}/slurm.conf {shutil.which("srun")} "$@"\n'
    )
    (folder / "bin" / "srun").chmod(0o755)
    environment = os.environ | {
        "SLURM_CONF": f"{folder}/slurm.conf",
        "PATH": f"{folder}/bin:{PATH}",
        "OMP_NUM_THREADS": "1",
    }

    def call(*command):
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout

    m = folder / "munge"
    try:
        call(
            "munged",
            f"--key-file={key}",
            f"--socket={m}/socket",
            f"--pid-file={m}/pid",
            f"--log-file={m}/log",
            f"--seed-file={m}/seed",
            "--num-threads=2",
        )
        call("slurmctld", "-f", f"{folder}/slurm.conf")
        call("slurmd", "-f", f"{folder}/slurm.conf", "-N", host)
        until = time.monotonic() + 30
        while "idle" not in call("sinfo", "-h", "-o", "%T"):
            assert time.monotonic() < until, "the node does not become idle"
            time.sleep(0.2)
        yield environment
    finally:
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            if (folder / name).exists():
                os.kill(int((folder / name).read_text()), signal.SIGTERM)
        time.sleep(2)
        shutil.rmtree(folder, ignore_errors=True)


def open_workflow(folder):
    """A copy of the workflow that jobs of any user can reach."""
    for parent in [folder, *folder.parents][:4]:
        parent.chmod(0o755)
    return copy_small_workflow(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The converted crystals, made once without SLURM."""
    folder = open_workflow(tmp_path_factory.mktemp("data"))
    target = "data/demo/neighbours/materials_project-5.0.h5"
    done = run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all", "--", target],
        folder,
        os.environ | {"PATH": PATH},
    )
    assert done.returncode == 0, done.stderr
    return folder / "data"


@pytest.fixture
def checkout(tmp_path):
    """The workflow and nothing else: everything is made over SLURM."""
    return open_workflow(tmp_path)


@pytest.fixture
def prepared(tmp_path, data):
    """The workflow with its data."""
    shutil.copytree(data, tmp_path / "data")
    return open_workflow(tmp_path)


def settings(steps):
    return {"steps": steps, "checkpoint_interval": min(steps, 200), "validation_interval": 500}


def trainings(checkout, steps, repeats):
    """The trainings that ``command(steps, repeats=repeats)`` starts."""
    config = {"scale": "demo", "repeats": repeats, "run": settings(steps)}
    return load_project(config, checkout).runs_of("table_2")


def training(checkout, steps, n_train=100):
    """Path of one of the two trainings that ``command(steps)`` starts."""
    runs = trainings(checkout, steps, 1)
    return next(r.path for r in runs if r.settings.n_train == n_train)


def training_log(checkout, steps, n_train=100):
    return checkout / f"results/demo/logs/train/{training(checkout, steps, n_train)}.log"


def damage(checkout, run):
    """A checkpoint that no attempt can read; returns its path."""
    folder = checkout / "results/demo/runs" / run
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"damaged")
    return folder / "checkpoint.pt"


def command(steps, *more, targets=TARGETS, device="cpu", repeats=1, group=SINGLE):
    run = "run={" + ", ".join(f"{k}: {v}" for k, v in settings(steps).items()) + "}"
    config = ["--config", f"repeats={repeats}", f"device={device}", run]
    return [
        sys.executable,
        "-m",
        "snakemake",
        *targets,
        "--cores",
        "all",
        *SLURM,
        *FAST,
        *group,
        *more,
        *config,
    ]


def run(arguments, checkout, environment):
    return subprocess.run(
        arguments, cwd=checkout, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


def local_results(checkout, tmp_path_factory, steps):
    """The same targets without SLURM, elsewhere."""
    other = open_workflow(tmp_path_factory.mktemp("local"))
    shutil.copytree(checkout / "data", other / "data")
    arguments = [a for a in command(steps) if a not in SLURM]
    done = run([*arguments, "--quiet"], other, os.environ | {"PATH": PATH})
    assert done.returncode == 0, done.stderr
    return other


def models(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.glob("results/*/runs/**/model.pt"))
    }


def wait_for(condition, process):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "snakemake ended: " + (
            process.stdout.read() if process.stdout else ""
        )
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)


def queue(environment, columns="%i|%j"):
    """(job id, name) of running jobs, or other columns."""
    lines = subprocess.run(
        ["squeue", "-h", "-t", "R", "-o", columns], env=environment, capture_output=True, text=True
    ).stdout.split("\n")
    return [line.split("|") for line in lines if "|" in line]


STARTED = []


@pytest.fixture(autouse=True)
def nothing_left(cluster):
    """A test that failed leaves no process and no job behind that would disturb the next."""
    yield
    while STARTED:
        STARTED.pop().kill()
    jobs = subprocess.run(["squeue", "-h", "-o", "%A"], env=cluster, capture_output=True, text=True)
    if jobs.stdout.split():
        subprocess.run(["scancel", *jobs.stdout.split()], env=cluster, check=False)


def start(arguments, checkout, environment):
    STARTED.append(
        subprocess.Popen(
            arguments,
            cwd=checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
    return STARTED[-1]


def kill_training(checkout) -> bool:
    """SIGKILL a training of this checkout, and of no other; False while there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments, folder = (
                (entry / "cmdline").read_bytes().split(b"\0"),
                os.readlink(entry / "cwd"),
            )
        except OSError:
            continue
        if (
            folder == str(checkout)
            and b"train" in arguments
            and not any(b"snakemake" in a or b"bash" in a for a in arguments)
        ):
            os.kill(int(entry.name), signal.SIGKILL)
            return True
    return False


def test_accidents_do_not_change_the_result(cluster, checkout, tmp_path_factory):
    """scancel of a training, SIGKILL of another's process: both continue to the same bits."""
    steps = 4_000
    process = start(command(steps), checkout, cluster)

    def checkpoints():
        return list(checkout.glob("results/demo/runs/**/checkpoint.pt"))

    wait_for(lambda: checkpoints() and any("train" in c for _, c in queue(cluster)), process)
    job = next(j for j, c in queue(cluster) if "train" in c)
    subprocess.run(["scancel", job], env=cluster, check=True)
    time.sleep(3)
    wait_for(lambda: any("train" in c for _, c in queue(cluster)), process)
    wait_for(lambda: kill_training(checkout), process)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    logs = checkout.glob("results/demo/logs/train/**/rep0.log*")
    text = {p.suffix: p.read_text() for p in logs}
    assert ".1" in text  # of the attempt before
    assert any("continuing from step" in t for t in text.values())
    assert (checkout / "results/demo/tables/table_2.md").exists() and (
        checkout / "results/demo/figures/figure_10.png"
    ).exists()
    assert not checkpoints()  # needed no more
    expected = models(local_results(checkout, tmp_path_factory, steps))
    assert models(checkout) == expected and len(expected) == 2
    again = run(command(steps), checkout, cluster)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout + again.stderr


CELLS = {
    "learning_curves_qm9": ("n25000", "T1"),
    "table_1": ("U0", "schnet"),
    "table_2": ("schnet", "n3000"),
    "table_3": ("ethanol", "both_1000"),
    "table_4": ("ethanol", "both_1000"),
    "table_4_larger": ("uracil", "F128_1000"),
    "table_5": ("T3_F64_rho0.01", "forces"),
    "table_iso17": ("both", "within_forces"),
    "architectures_qm9": ("schnet_T3", "U0"),
    "architectures_md17": ("fully_connected", "ethanol_forces"),
    "gdml_md17": ("ethanol", "sgdml_forces"),
}


def test_upstream_data_to_report(cluster, checkout, mirror, tmp_path_factory):
    """A cell of every table and every figure from upstream files to report.html, in pairs."""
    for path in (checkout / "workflow/experiments").glob("*.yaml"):
        if path.stem not in CELLS:
            path.unlink()
            continue
        keys = CELLS[path.stem]
        experiment = read_yaml(path)
        experiment.pop("claims", None)  # on what is gone
        for kind, key in zip(("rows", "columns"), keys, strict=True):
            experiment[kind] = [e for e in experiment[kind] if e["key"] == key or e.get("quoted")]
        write_yaml(path, experiment)
    for path in (checkout / "workflow/figures").glob("*.yaml"):  # whose labels name what is gone
        figure = read_yaml(path)
        if figure.get("experiments") not in (None, "all"):
            if not set(figure["experiments"]) <= CELLS.keys():
                path.unlink()
                continue
        for option in ("labels", "columns", "rows"):
            figure.get("options", {}).pop(option, None)
        write_yaml(path, figure)
    path = checkout / "workflow/scales/small.yaml"
    scale = read_yaml(path)
    for family in scale["families"].values():
        family["n_train"] = dict.fromkeys(family["n_train"], 100)
        family["n_validation"] = 40
        family.pop("run", None)
        family.pop("steps", None)
    scale["families"]["materials"]["n_train"] = dict.fromkeys(
        scale["families"]["materials"]["n_train"]
    )  # crystals: the other tests
    scale["families"]["c20"]["generate"] = {"trajectories": 2, "frames": 100}
    scale["resources"]["runtime"] = 30
    scale["simulations"] = {
        "c20_dynamics": {
            "beads": [1, 2],
            "settings": {"steps": 40, "interval": 10},
            "runtime": 30,
        },
        "c20_modes": {
            "models": {"xtb": {"calculator": "gfn2-xtb", "label": "GFN2-xTB"}},
            "runtime": 30,
        },
    }
    scale["run"] |= {"steps": 40, "validation_interval": 20, "checkpoint_interval": 20}
    write_yaml(path, scale)
    resources = ["--set-resources", "distil:runtime=30"]
    config = ["--config", "scale=small", f"mirror={mirror}", "device=cpu"]
    done = run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "--cores",
            "all",
            *SLURM,
            *FAST,
            *resources,
            "--group-components",
            "runs=2",
            *config,
        ],
        checkout,
        cluster,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = checkout / "results/small"
    text = (results / "report.html").read_text()
    assert "<h2>Table V" in text and "id='figure_9'" in text and "id='figure_11'" in text
    made = {p.relative_to(results / "runs").parts[0] for p in results.glob("runs/**/metrics.json")}
    assert made == {"qm9", "md17_ethanol", "md17_uracil", "c20"}
    output = done.stdout + done.stderr
    assert all(
        f"logs/slurm/{what}" in output for what in ("rule_distil", "rule_convert", "group_runs")
    )
    other = open_workflow(tmp_path_factory.mktemp("local"))
    shutil.rmtree(other / "workflow")  # with the tables that the checkout has not
    for name in ("workflow", "data"):
        shutil.copytree(checkout / name, other / name, dirs_exist_ok=True)
    done = run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all", *config],
        other,
        os.environ | {"PATH": PATH},
    )
    assert done.returncode == 0, done.stderr
    # one for each kind of run but sgdml's; three of ethanol's seeds and of two runs of QM9
    assert models(other) == models(checkout) and len(models(other)) == 14


def test_main_process_killed_and_started_again(cluster, prepared):
    process = start(command(2000), prepared, cluster)
    wait_for(lambda: any("train" in c for _, c in queue(cluster)), process)
    process.kill()
    process.wait()
    until = time.monotonic() + PATIENCE
    while queue(cluster):
        assert time.monotonic() < until
        time.sleep(0.5)
    finished = {p: p.stat().st_mtime_ns for p in prepared.glob("results/demo/runs/**/model.pt")}
    assert finished
    assert run([*command(2000), "--unlock"], prepared, cluster).returncode == 0
    done = run(command(2000), prepared, cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (prepared / "results/demo/tables/table_2.md").exists()
    assert all(p.stat().st_mtime_ns == t for p, t in finished.items())  # nothing was trained twice


@pytest.mark.parametrize(("members", "login_cores"), [(4, 1), (8, 2)])
def test_members_of_a_job(cluster, prepared, members, login_cores):
    """Several runs side by side in one job, with their evaluations; one fails, the others do not.

    The main process sees fewer cores than the job has.
    """
    table = prepared / "workflow/experiments/table_2.yaml"
    write_yaml(table, read_yaml(table) | {"repeats": members // 2})
    runs = trainings(prepared, 50, members // 2)
    damaged = damage(prepared, runs[0].path)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:login_cores]))
    # eight is what the demo's scale says
    group = ["--group-components", "runs=4"] if members == 4 else []
    targets = ["table_2"]
    arguments = command(50, "--retries", "0", targets=targets, repeats=members // 2, group=group)
    process = start(["taskset", "-c", cores, *arguments], prepared, cluster)
    wait_for(lambda: any("train" in name for _, name in queue(cluster)), process)
    assert [cores for cores, _ in queue(cluster, "%C|%j")] == [str(members)]
    output = process.communicate(timeout=PATIENCE)[0]
    folder = prepared / "results/demo"
    sentence = f"logs/train/{runs[0].path}.log: schnet: error: "
    assert process.returncode != 0 and output.count(sentence) == 1, output
    assert len(re.findall(r"^\S+\.log: .*error", output, re.MULTILINE)) == 1  # no other is blamed
    evaluated = {f"{p.parent}": p.stat().st_mtime_ns for p in folder.glob("runs/**/metrics.json")}
    assert len(evaluated) == members - 1
    # the next call trains the one that is missing, and no other
    damaged.unlink()
    done = run(arguments, prepared, cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    again = {f"{p.parent}": p.stat().st_mtime_ns for p in folder.glob("runs/**/metrics.json")}
    assert len(again) == members and evaluated.items() <= again.items()
    assert (folder / "tables/table_2.md").exists()


def test_kinds_of_runs_have_jobs_of_their_own(cluster, prepared):
    """Networks ask for a GPU, kernels for none; both pack their runs, and the table is whole."""
    table = read_yaml(ROOT / "workflow/experiments/table_2.yaml")
    del table["claims"]  # on the other kernels
    table["rows"] = [row for row in table["rows"] if row["key"] in ("ewald", "sine", "schnet")]
    write_yaml(prepared / "workflow/experiments/table_2.yaml", table)
    pairs = ["--group-components", "runs=2"]
    arguments = command(300, targets=["table_2"], device="auto", group=pairs)
    process = start(arguments, prepared, cluster)
    asked = set()
    while process.poll() is None:
        asked |= {tuple(job) for job in queue(cluster, "%j|%b|%C")}
        time.sleep(0.1)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    packed = [job for job in asked if "train" in job[0]]
    jobs = {("kernel_ridge" in name, "gpu:1" in gpus, cores) for name, gpus, cores in packed}
    assert jobs == {(True, False, "2"), (False, True, "2")}, asked
    made = {path.parts[-4].split("-")[0] for path in prepared.glob("results/**/metrics.json")}
    assert made == {"schnet", "kernel_ridge"}
    rows = (prepared / "results/demo/tables/table_2.md").read_text().split("\n")
    assert sum(row.startswith(("| Ewald", "| sine", "| SchNet")) for row in rows) == 3


def test_a_refusal_that_lasts_ends_the_run(cluster, prepared):
    """One sentence about what sbatch said, no attempt after it."""
    more = ["--set-resources", "train:runtime=6000"]
    done = run(command(50, *more, targets=["table_2"]), prepared, cluster)
    output = done.stdout + done.stderr
    assert done.returncode != 0 and "Trying to restart" not in output
    (sentence,) = re.findall("SLURM refuses the job .*", output)
    assert "time limit" in sentence and "slurm/config.yaml" in sentence
    assert "sbatch call" not in output


def test_controller_away_for_a_while(cluster, prepared):
    """Jobs go on, and Snakemake hears of their ends once the controller is back."""
    process = start(command(500, targets=["table_2"]), prepared, cluster)
    ended = prepared / "results/demo/runs"

    def runs():
        """That are over, and that run: none may wait for the controller."""
        over = len(list(ended.glob("**/metrics.json")))
        return over + sum("train" in name for _, name in queue(cluster))

    wait_for(lambda: runs() >= 2, process)
    configuration = Path(cluster["SLURM_CONF"])
    pid = configuration.with_name("slurmctld.pid")
    os.kill(int(pid.read_text()), signal.SIGTERM)
    wait_for(lambda: len(list(ended.glob("**/metrics.json"))) == 2, process)
    time.sleep(15)  # a poll or two without an answer
    assert process.poll() is None
    subprocess.run(["slurmctld", "-f", str(configuration)], env=cluster, check=True)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output


def test_what_a_site_may_need(cluster, prepared):
    """The commented lines of the profile, uncommented."""
    profile = prepared / "slurm/config.yaml"
    settings = read_yaml(profile)
    text = profile.read_text()
    for line in (
        "# slurm_account: my_account",
        "# slurm_partition: my_partition",
        "# qos: normal",
        "# slurm_extra: \"'--mail-type=FAIL --mail-user=me@example.org'\"",
        "#   train: {slurm_partition: gpu}",
        "#   train: {gres: \"''\"}",
        "#   train: {mem_mb: 0}",
    ):
        assert line in text
    both = {"slurm_partition": "gpu", "gres": "''", "mem_mb": 0}
    settings["default-resources"] |= {
        "slurm_account": "my_account",
        "slurm_partition": "main",
        "qos": "normal",
        "slurm_extra": "'--mail-type=FAIL --mail-user=me@example.org'",
    }
    settings["set-resources"] = {"train": both}
    write_yaml(profile, settings)
    process = start(command(50, targets=["table_2"], device="auto"), prepared, cluster)
    wait_for(lambda: any("train" in name for _, name in queue(cluster)), process)
    asked = {tuple(job) for job in queue(cluster, "%P|%b|%m")}
    assert asked == {("gpu", "N/A", "200M")}  # of memory: what SLURM gives unasked
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output


def test_time_limit(cluster, prepared):
    """A job that hits its limit gets SIGTERM, writes a checkpoint and goes on in the next job."""
    # SLURM looks at limits about every half minute: the training must last longer than that
    process = start(
        command(
            40_000,
            targets=[f"results/demo/runs/{training(prepared, 40_000)}/model.pt"],
            device="auto",
        ),
        prepared,
        cluster,
    )
    wait_for(
        lambda: (
            any("train" in c for _, c in queue(cluster))
            and list(prepared.glob("results/demo/runs/**/checkpoint.pt"))
        ),
        process,
    )
    job = next(j for j, c in queue(cluster) if "train" in c)
    gres = subprocess.run(
        ["squeue", "-h", "-j", job, "-o", "%b"], env=cluster, capture_output=True, text=True
    ).stdout
    assert (
        "gpu:1" in gres
    )  # auto asks for a GPU; the training finds none on this node and takes the CPU
    subprocess.run(
        ["scontrol", "update", f"JobId={job}", "TimeLimit=0:01"], env=cluster, check=True
    )
    log = training_log(prepared, 40_000)

    def said(text):  # the log of an attempt that has ended gets another name
        return any(text in each.read_text() for each in log.parent.glob(f"{log.name}*"))

    wait_for(lambda: said("checkpoint written at step"), process)
    wait_for(lambda: said("continuing from step"), process)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output


def test_node_lost_and_back(cluster, prepared):
    """SLURM requeues the job by itself; the training continues from its checkpoint."""
    target = f"results/demo/runs/{training(prepared, 6_000)}"
    process = start(command(6_000, targets=[f"{target}/model.pt"]), prepared, cluster)
    wait_for(
        lambda: (
            any("train" in c for _, c in queue(cluster))
            and list(prepared.glob("results/demo/runs/**/checkpoint.pt"))
        ),
        process,
    )
    node = subprocess.run(
        ["sinfo", "-h", "-o", "%n"], env=cluster, capture_output=True, text=True, check=True
    ).stdout.split()[0]
    for state in (["State=DOWN", "Reason=test"], ["State=RESUME"]):
        # the node may have come back by itself when it is asked to
        subprocess.run(
            ["scontrol", "update", f"NodeName={node}", *state],
            env=cluster,
            check="RESUME" not in state[0],
        )
        time.sleep(3)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    assert (
        "continuing from step" in training_log(prepared, 6_000).read_text()
        and (prepared / target / "model.pt").exists()
    )
