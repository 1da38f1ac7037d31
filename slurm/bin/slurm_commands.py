#!/usr/bin/env python3
"""sbatch, squeue and sacct as Snakemake calls them, made fit for real clusters.

workflow/rules/slurm.smk puts this folder first on the PATH of the main process, so that Snakemake's
SLURM executor calls these, and they call SLURM's own. They mend four things:

- a job runs its group side by side: the executor's own way is one member after another;
- a job is named after its rule and run; the executor knows it by a number that nobody else knows;
- a refused submission waits for better times; one that can never succeed ends the call;
- the state of a job is what its own record says. The executor forgets a job for ever when the
  controller does not answer once, or when SLURM has removed a finished job from its list.

Every job that was submitted has a file RECORDS/RUN/ID; RECORDS/RUN/ID.exit holds its exit status.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

RECORDS = Path(".snakemake/slurm_jobs")
REFUSED = RECORDS / "refused"  # there once SLURM refuses a job for good: the main process ends then
NOTICE = 3  # seconds in which it will have seen that
WAITS = (10, 20, 40, 60)  # seconds between attempts to submit; the last one is repeated
PATIENCE = 6 * 3600  # seconds until a refusal that may pass counts as a failure
ANSWER = 30  # seconds that the queue may take to answer; the executor gives up after 60
GONE = 60  # seconds that SLURM must not know a job, and the job not have ended, until it is lost
NAME_LENGTH = 120
CONFIGURATION = "SCHNET_SLURM_CONF"  # SLURM_CONF of the main process
# what sbatch says when it may accept the same job later
PASSING = re.compile(
    r"unable to contact|communication|connection|timed out|temporarily|try again|not respond"
    r"|MaxSubmit|MaxJobs|policy \(job submit limit",
    re.IGNORECASE,
)
# of the same refusals, those that never pass: a limit of size or time, not of number
LASTING = re.compile(r"Max(Wall|Cpu|Node|Mem|TRES)\w*", re.IGNORECASE)


def real(command: str) -> str:
    """Path of SLURM's own command."""
    here = Path(__file__).resolve().parent
    folders = [f for f in os.environ["PATH"].split(":") if f and Path(f).resolve() != here]
    found = shutil.which(command, path=":".join(folders))
    if found is None:
        sys.exit(f"{command}: not found: is SLURM installed here?")
    return found


def say(text: str):
    """One line for the main process to print; Snakemake keeps what its commands print to itself."""
    messages = os.environ.get("SCHNET_MESSAGES")
    if not messages:
        return
    Path(messages).parent.mkdir(parents=True, exist_ok=True)
    with open(messages, "a") as stream:
        print(f"[{time.strftime('%c')}] {text}", file=stream)


def option(arguments: list[str], name: str) -> str | None:
    """The value of ``--name value`` or ``--name=value``."""
    for position, argument in enumerate(arguments):
        if argument == name:
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


def replaced(arguments: list[str], name: str, value: str) -> list[str]:
    """The arguments with another value of an option."""
    old = option(arguments, name)
    changed = []
    for position, argument in enumerate(arguments):
        if position and arguments[position - 1] == name:
            changed.append(value)
        elif argument == f"{name}={old}":
            changed.append(f"{name}={value}")
        else:
            changed.append(argument)
    return changed


def job_name(comment: str, command: str) -> str:
    """What a job does, for people: its rule and wildcards, or the runs of a group.

    >>> job_name("rule_convert_wildcards_qm9", "")
    'convert qm9'
    """
    runs = list(dict.fromkeys(re.findall(r"\btrain:run=([^\s'\"\\]+)", command)))
    if not runs:
        return comment.removeprefix("rule_").replace("_wildcards_", " ")[:NAME_LENGTH]
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"train {runs[0]}"[: NAME_LENGTH - len(more)] + more


def job_command(command: str, cores: str, record: str) -> str:
    """The command of a job: its group side by side on its own cores, then its exit status."""
    command = command.replace("--executor slurm-jobstep --jobs 1", "--executor local --keep-going")
    command = re.sub(r"(?<=\s)--cores \S+", f"--cores {cores}", command, count=1)
    ends = f'code=$?\necho $code > "{record}/$SLURM_JOB_ID.exit"\nexit $code'
    return f"{command}\n{ends}"


def refused(name: str, reason: str):
    """Say once that SLURM refuses a job for good; workflow/rules/slurm.smk then ends the call."""
    if REFUSED.exists():
        time.sleep(NOTICE)
        return
    REFUSED.parent.mkdir(parents=True, exist_ok=True)
    REFUSED.write_text(reason)
    say(
        f"SLURM refuses the job '{name}' ({reason}): change slurm/config.yaml or the resources of "
        "the scale (docs/cluster.md) and call snakemake again; this call ends when running jobs "
        "have ended (Ctrl-C cancels them)"
    )
    time.sleep(NOTICE)


def sbatch(arguments: list[str]) -> int:
    """Submit a job; waits where it is refused for reasons that pass."""
    run = option(arguments, "--job-name")
    command = option(arguments, "--wrap")
    if run and command:
        records = RECORDS.absolute() / run
        records.mkdir(parents=True, exist_ok=True)
        name = job_name(option(arguments, "--comment") or "", command)
        cores = option(arguments, "--cpus-per-task") or "all"
        arguments = replaced(arguments, "--job-name", name)
        arguments = replaced(arguments, "--wrap", job_command(command, cores, str(records)))
    # a job inherits the environment, but not what is said of the main process there
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SCHNET_")}
    call = {"capture_output": True, "text": True, "env": inherited}
    if REFUSED.exists():
        time.sleep(NOTICE)  # a failure at once would be followed by the next attempt
        return 1
    begin = time.monotonic()
    for attempt in range(sys.maxsize):
        done = subprocess.run([real("sbatch"), *arguments], **call)
        if done.returncode == 0:
            break
        reason = " ".join(done.stderr.replace("sbatch: error: ", "").split())
        passing = PASSING.search(reason) and not LASTING.search(reason)
        if not passing:
            refused(option(arguments, "--job-name") or "", reason)
        if not passing or time.monotonic() - begin > PATIENCE:
            break
        wait = WAITS[min(attempt, len(WAITS) - 1)]
        say(f"SLURM takes no more jobs now ({reason}): trying again in {wait} s")
        time.sleep(wait)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    if done.returncode == 0 and run and command:
        (records / done.stdout.strip().split(";")[0]).touch()
    return done.returncode


def listed() -> dict[str, str] | None:
    """State of every job of the user that SLURM knows; None where it does not answer."""
    command = [real("squeue"), "--me", "--states=all", "--noheader", "--format=%A|%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    return dict(line.split("|") for line in done.stdout.split())


def states(run: str) -> dict[str, str]:
    """State of every job of a call of Snakemake, as far as it is known.

    A job that is not in the answer is one that Snakemake goes on waiting for.
    """
    known = listed()
    answer = {}
    for record in sorted((RECORDS / run).glob("*[0-9]")):
        job = record.name
        ended = record.with_name(f"{job}.exit")
        if ended.exists() and ended.read_text().strip():
            answer[job] = "COMPLETED" if ended.read_text().strip() == "0" else "FAILED"
        elif known is None:
            continue
        elif job in known:
            answer[job] = known[job]
            record.touch()
        elif time.time() - record.stat().st_mtime > GONE:
            answer[job] = "FAILED"
    return answer


def last_line(arguments: list[str]) -> int:
    """sacct for a call that ends in ``| tail -1``, as the executor asks for an account."""
    question = arguments[: arguments.index("|")]
    done = subprocess.run([real("sacct"), *question], capture_output=True, text=True)
    print("".join(done.stdout.splitlines()[-1:]))
    sys.stderr.write(done.stderr)
    return done.returncode


def main() -> int:
    """What the name of this file asks for."""
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if os.environ.get(CONFIGURATION):  # the executor removes SLURM's own variables inside a job
        os.environ.setdefault("SLURM_CONF", os.environ[CONFIGURATION])
    if name == "sacct" and "|" in arguments:
        return last_line(arguments)
    if name == "sbatch":
        return sbatch(arguments)
    run = option(arguments, "--name")
    if run and (RECORDS / run).is_dir():
        for job, state in states(run).items():
            print(f"{job}|{state}")
        return 0
    os.execv(real(name), [name, *arguments])


if __name__ == "__main__":
    sys.exit(main())
