"""A model as a client of i-PI's socket protocol, for those who run i-PI themselves."""

from __future__ import annotations

import logging
from pathlib import Path

from ase import Atoms
from ase.calculators.socketio import SocketClient, actualunixsocketname

from schnet.errors import ConfigError, DataError, SchNetError
from schnet.simulation.calculator import SchNetCalculator

log = logging.getLogger("schnet")


def _connect(unix: str | None, host: str, port: int | None) -> SocketClient:
    where = actualunixsocketname(unix) if unix else f"{host}:{port}"
    try:
        return SocketClient(unixsocket=unix, host=host, port=port)
    except FileNotFoundError as error:
        raise SchNetError(
            f"{where}: no such socket; start i-PI first, with <address>{unix}</address>"
        ) from error
    except ConnectionRefusedError as error:
        leftover = "the file is left from a run that has ended: delete it, and " if unix else ""
        raise SchNetError(f"{where}: nobody listens; {leftover}start i-PI first") from error
    except OSError as error:
        raise SchNetError(f"{where}: cannot connect ({error.strerror or error})") from error


def ipi_driver(
    atoms: Atoms,
    models,
    *,
    unix: str | None = None,
    host: str = "localhost",
    port: int | None = None,
    **options,
) -> None:
    """Answer i-PI's requests for energies and forces until it says that it has ended.

    Args:
        atoms: the structure: elements in i-PI's order, and whether it is periodic.
        models: model files or Models, several are a committee.
        unix: name of a UNIX socket, i-PI's <address>: /tmp/ipi_NAME.
        host, port: of an internet socket, used without ``unix``; the port is 31415 by default.
        options: of SchNetCalculator: device, threads, engine, skin.

    Raises:
        SchNetError: nobody listens, or the connection breaks in the middle of a message.
    """
    atoms = atoms.copy()
    atoms.calc = SchNetCalculator(models, **options)
    atoms.get_forces()  # what is refused is refused before anybody waits for an answer
    port = 31415 if port is None else port
    if not 0 < port < 65536:
        raise ConfigError(f"ipi-driver: port: {port} is none; they go from 1 to 65535")
    client = _connect(unix, host, port)
    log.info("connected; %s", Path(actualunixsocketname(unix)) if unix else f"{client.host}")
    try:
        answers = sum(1 for _ in client.irun(atoms, use_stress=bool(atoms.pbc.all())))
        log.info("i-PI has ended after %d evaluations", answers)
    except ValueError as error:  # positions of another shape
        raise DataError(
            f"{atoms.get_chemical_formula()}: i-PI sends another number of atoms ({error}); give "
            "the structure that i-PI has"
        ) from error
    except (ConnectionError, BrokenPipeError) as error:
        raise SchNetError(f"i-PI closed the connection ({error})") from error
    finally:
        client.close()
