"""slurm/bin: what Snakemake gets when it calls sbatch and squeue, with made-up ones behind them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "slurm" / "bin"))
import slurm_commands

BIN = ROOT / "slurm" / "bin"
GROUP = "python -m snakemake --target-jobs 'train:run=qm9/U0/a/n9/rep0'"
INNER = f"{GROUP} --cores 2 --executor slurm-jobstep --jobs 1 --mode remote"
SUBMIT = ["--parsable", "--job-name", "RUN", "--comment", "rule_x", "--cpus-per-task=4"]


class Slurm:
    """Commands in a folder on the PATH; each call of sbatch is one line of ``calls``."""

    def __init__(self, folder: Path):
        self.folder, self.calls = folder, folder / "calls"
        folder.mkdir()

    def command(self, name: str, script: str):
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)

    def refuses(self, reason: str, times: int):
        self.command(
            "sbatch",
            f'echo "$@" | tr "\\n" " " >> {self.calls}; echo >> {self.calls}\n'
            f'[ $(wc -l < {self.calls}) -gt {times} ] || {{ echo "{reason}" >&2; exit 1; }}\n'
            "echo 77",
        )

    @property
    def submitted(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    fake = Slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{BIN}:{fake.folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SCHNET_MESSAGES", str(tmp_path / "messages"))
    monkeypatch.setattr(slurm_commands, "WAITS", (0, 0))
    monkeypatch.chdir(tmp_path)
    return fake


def answer(name, *arguments):
    return subprocess.run([BIN / name, *arguments], capture_output=True, text=True)


def states():
    """What Snakemake's executor reads, as it asks for it."""
    command = ["--format=%i|%T", "--states=all", "--noheader", "--name", "RUN"]
    return dict(line.split("|") for line in answer("squeue", *command).stdout.split())


def test_submitted_jobs(slurm, capsys):
    """A name for people, members side by side on the cores that were asked for, an exit status."""
    slurm.refuses("", 0)
    assert slurm_commands.sbatch([*SUBMIT, "--wrap", INNER]) == 0
    assert capsys.readouterr().out == "77\n"
    call = slurm.submitted[0]
    assert "--job-name train qm9/U0/a/n9/rep0 " in call and "--executor local --keep-going" in call
    assert "--cores 4" in call and "slurm-jobstep" not in call and "exit $code" in call
    assert slurm_commands.job_name("rule_convert_wildcards_qm9", "") == "convert qm9"
    many = " ".join(f"'train:run=a/{k}/{'x' * 99}/n9/rep0'" for k in range(3))
    name = slurm_commands.job_name("group", many)
    assert name.endswith(" and 2 more") and len(name) <= slurm_commands.NAME_LENGTH


@pytest.mark.parametrize(
    "reason",
    [
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: "
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.",
    ],
)
def test_refusals_that_pass(slurm, tmp_path, reason, capsys):
    slurm.refuses(reason, 3)
    assert slurm_commands.sbatch([*SUBMIT, "--wrap", INNER]) == 0
    assert len(slurm.submitted) == 4 and capsys.readouterr().out == "77\n"
    messages = (tmp_path / "messages").read_text().splitlines()
    assert len(messages) == 3 and "SLURM takes no more jobs now" in messages[0]


@pytest.mark.parametrize(
    "reason",
    [
        "sbatch: error: Batch job submission failed: Requested time limit is invalid",
        "sbatch: error: invalid partition specified: gqu",
        "sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: "
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    ],
)
def test_refusals_that_last_are_said_once(slurm, tmp_path, reason, monkeypatch):
    monkeypatch.setattr(slurm_commands, "NOTICE", 0)
    slurm.refuses(reason, 99)
    for _ in range(3):
        assert slurm_commands.sbatch([*SUBMIT, "--wrap", INNER]) == 1
    assert len(slurm.submitted) == 1 and slurm_commands.REFUSED.exists()
    (message,) = (tmp_path / "messages").read_text().splitlines()
    assert "slurm/config.yaml" in message and "'train qm9/U0/a/n9/rep0'" in message


def test_states_are_those_of_the_jobs(slurm, tmp_path):
    """Whatever SLURM says, or does not say, an exit status counts; a lost job has failed."""
    records = tmp_path / slurm_commands.RECORDS / "RUN"
    records.mkdir(parents=True)
    for job in "123456":
        (records / job).touch()
    (records / "1.exit").write_text("0\n")
    (records / "2.exit").write_text("1\n")
    slurm.command("squeue", 'echo "3|RUNNING"; echo "4|TIMEOUT"; echo "99|RUNNING"')
    long_ago = 0
    os.utime(records / "5", (long_ago, long_ago))
    expected = {"1": "COMPLETED", "2": "FAILED", "3": "RUNNING", "4": "TIMEOUT", "5": "FAILED"}
    assert states() == expected  # 6 was submitted a moment ago
    for silent in ('echo "cannot connect" >&2; exit 1', "exit 1"):
        slurm.command("squeue", silent)
        assert states() == {"1": "COMPLETED", "2": "FAILED"}
    # sacct, where the executor thinks that squeue forgets too soon
    done = answer("sacct", "-X", "--parsable2", "--name", "RUN")
    assert done.stdout.split() == ["1|COMPLETED", "2|FAILED"]


def test_the_account_is_asked_for_as_if_by_a_shell(slurm, monkeypatch):
    slurm.command("sacct", 'echo "$@ $SLURM_CONF"; echo mine')
    done = answer("sacct", "-nu", "me", "-o", "Account%256", "|", "tail", "-1")
    assert (done.stdout, done.returncode) == ("mine\n", 0)
    slurm.command("sacct", 'echo "accounting is disabled" >&2; exit 1')
    done = answer("sacct", "-nu", "me", "|", "tail", "-1")
    assert done.returncode == 1 and "accounting is disabled" in done.stderr
    # inside a job the executor removes SLURM_CONF
    monkeypatch.delenv("SLURM_CONF", raising=False)
    monkeypatch.setenv("SCHNET_SLURM_CONF", "/opt/slurm.conf")
    slurm.command("squeue", 'echo "$SLURM_CONF"')
    assert answer("squeue", "--me").stdout == "/opt/slurm.conf\n"


def test_other_questions_go_to_slurm_itself(slurm):
    slurm.command("squeue", 'echo "the real one: $@"')
    assert answer("squeue", "--me").stdout == "the real one: --me\n"
    assert answer("squeue", "--name", "of others").stdout == "the real one: --name of others\n"
