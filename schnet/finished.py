"""What a finished run says of itself (run.yaml), in a form that all methods share."""

from __future__ import annotations

from dataclasses import dataclass, field

from schnet.run import Run

#: what stands under numbers of ``Finished.core_seconds``
CORE_SECONDS = (
    "Core-seconds: processor time; of runs that did not count it, seconds times threads, which "
    "other work on the machine lengthens."
)


@dataclass(frozen=True)
class Finished:
    """Cost and origin of one finished run; None where its method has no such thing.

    Attributes:
        dataset, method, protocol: of its settings; protocol: None without gradient steps.
        n_train: training structures.
        steps: gradient steps taken.
        seconds: time of the fit. memory_mb: largest resident memory.
        core_seconds: processor time of the fit, all threads together; on a GPU, and of runs that
            did not count it, seconds times threads.
        threads: of the fit.
        engine: what computed the model. hardware: the processor or GPU that was used.
        digest: of the data set it was fitted to.
        sources: records of the upstream files: file, url, checksum_from, notes and more.
        notes: of the converted file, see `schnet.data.census`.
        modified: whether the code had changes that were not committed.
    """

    dataset: str
    method: str
    protocol: str | None
    n_train: int | None
    steps: int | None
    seconds: float | None
    core_seconds: float | None
    memory_mb: float | None
    threads: int
    engine: str | None
    hardware: str
    digest: str
    sources: list[dict] = field(default_factory=list)
    notes: dict = field(default_factory=dict)
    modified: bool = False

    @classmethod
    def read(cls, run: Run) -> Finished | None:
        """Of a run of the project, or None while it is not finished."""
        about = run.about()
        return None if about is None else cls.of(about)

    @classmethod
    def of(cls, about: dict) -> Finished:
        """Of the content of a run.yaml."""
        settings, result = about["run"], about["result"]
        data = about.get("data", {})
        threads = about.get("execution", {}).get("threads", 1)
        seconds = result.get("seconds", result.get("training_seconds"))
        method = settings.get("method", "neural")
        return cls(
            dataset=settings["dataset"],
            method=method,
            protocol=settings.get("protocol") if method == "neural" else None,
            n_train=result.get("n_train", settings.get("n_train")),
            steps=result.get("steps"),
            seconds=seconds,
            core_seconds=_core_seconds(about, seconds, threads),
            memory_mb=result.get("peak_memory_mb"),
            threads=threads,
            engine=result.get("engine"),
            hardware=_hardware(about),
            digest=data.get("digest", ""),
            sources=data.get("sources", []),
            notes=data.get("notes", {}),
            modified=bool(about.get("provenance", {}).get("git", {}).get("modified")),
        )


def _device(about: dict) -> str:
    return about.get("execution", {}).get("device", about["result"].get("device", "cpu"))


def _core_seconds(about: dict, seconds: float | None, threads: int) -> float | None:
    """See ``Finished``: the processor waits for a GPU, and its time says little of the cost."""
    if _device(about) == "cpu" and "core_seconds" in about["result"]:
        return about["result"]["core_seconds"]
    return None if seconds is None else seconds * threads


def _hardware(about: dict) -> str:
    """What the run used: a GPU that was there and idle is not named."""
    result, machine = about["result"], about.get("provenance", {})
    if result.get("hardware"):
        return result["hardware"]
    device = _device(about)
    name = machine.get("cpu") if device == "cpu" else machine.get("gpu")
    return name or device
