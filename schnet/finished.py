"""What a finished run says of itself (run.yaml), in a form that all methods share."""

from __future__ import annotations

from dataclasses import dataclass, field

from schnet.run import Run


@dataclass(frozen=True)
class Finished:
    """Cost and origin of one finished run; None where its method has no such thing.

    Attributes:
        dataset, method, protocol: of its settings; protocol: None without gradient steps.
        n_train: training structures.
        steps: gradient steps taken.
        seconds: time of the fit. memory_mb: largest resident memory.
        threads: of the fit.
        engine: what computed the model. hardware: the processor or GPU that was used.
        digest: of the data set it was fitted to.
        sources: records of the upstream files: file, url, checksum_from, notes and more.
        notes: of the converted file, see `schnet.data.census`.
    """

    dataset: str
    method: str
    protocol: str | None
    n_train: int | None
    steps: int | None
    seconds: float | None
    memory_mb: float | None
    threads: int
    engine: str | None
    hardware: str
    digest: str
    sources: list[dict] = field(default_factory=list)
    notes: dict = field(default_factory=dict)

    @property
    def core_seconds(self) -> float:
        """Seconds of the fit times its threads; on a GPU, seconds. 0 where they are not known."""
        return (self.seconds or 0) * self.threads

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
        method = settings.get("method", "neural")
        return cls(
            dataset=settings["dataset"],
            method=method,
            protocol=settings.get("protocol") if method == "neural" else None,
            n_train=result.get("n_train", settings.get("n_train")),
            steps=result.get("steps"),
            seconds=result.get("seconds", result.get("training_seconds")),
            memory_mb=result.get("peak_memory_mb"),
            threads=about.get("execution", {}).get("threads", 1),
            engine=result.get("engine"),
            hardware=_hardware(about),
            digest=data.get("digest", ""),
            sources=data.get("sources", []),
            notes=data.get("notes", {}),
        )


def _hardware(about: dict) -> str:
    """What the run used: a GPU that was there and idle is not named."""
    result, machine = about["result"], about.get("provenance", {})
    if result.get("hardware"):
        return result["hardware"]
    device = about.get("execution", {}).get("device", result.get("device", "cpu"))
    name = machine.get("cpu") if device == "cpu" else machine.get("gpu")
    return name or device
