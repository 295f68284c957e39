"""The command posture-analyzer."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from posture_common.service import EXIT_REFUSED, FailedError, LastingError, set_up_logging, stop_on_signals
from posture_common.settings import SettingsError

from .settings import AnalysisSettings, AnalyzerSettings, PruneSettings

if TYPE_CHECKING:
    from .files import FileResult

# The modules with MediaPipe are imported where they are used: a wrong setting or --help need not wait for it.


def main() -> int:
    """Run the command; the settings come from the environment."""
    parser = argparse.ArgumentParser(
        prog="posture-analyzer",
        description="Without a command: analyse the stream POSTURE_STREAM until stopped. Settings: docs/analyzer.md.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    image = commands.add_parser("image", help="analyse image files, without broker or database")
    image.add_argument("files", nargs="+", type=Path, metavar="FILE")
    image.add_argument("--json", action="store_true", help="print JSON instead of a table")
    image.add_argument("--save", type=Path, metavar="DIR", help="also write the annotated pictures there")
    image.add_argument(
        "--rotate", type=int, choices=(0, 90, 180, 270), default=0, help="turn them clockwise, as posture_camera_rotate"
    )
    commands.add_parser("check", help="try broker, database, model and images directory, and say what is wrong")
    commands.add_parser("retry", help="put the rows in that the database refused, once its table is mended")
    commands.add_parser("prune", help="remove pictures and dead letters that are too old or too much")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "image":
                return _image(arguments.files, as_json=arguments.json, save_to=arguments.save, rotate=arguments.rotate)
            case "check":
                return _check()
            case "retry":
                return _retry()
            case "prune":
                return _prune()
            case _:
                return _run()
    except (SettingsError, LastingError) as error:
        print(f"posture-analyzer: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except FailedError as error:
        print(f"posture-analyzer: {error}", file=sys.stderr)
        return 1


def _run() -> int:
    settings = AnalyzerSettings.read()
    set_up_logging(settings.log_level)
    stop = stop_on_signals()

    from .check import write_probe
    from .run import Analyzer

    write_probe(settings)
    Analyzer(settings, stop).run()
    return 0


def _check() -> int:
    settings = AnalyzerSettings.read()
    set_up_logging("ERROR")

    from .check import check

    failed = 0
    for name, problem in check(settings):
        print(f"{'ok  ' if problem is None else 'FAIL'} {name}{'' if problem is None else f': {problem}'}", flush=True)
        failed += problem is not None
    return 1 if failed else 0


def _retry() -> int:
    settings = AnalyzerSettings.read()
    set_up_logging("ERROR")

    from .connecting import DatabaseUnavailableError
    from .database import Database
    from .dead_letters import DeadLetters, retry

    letters = DeadLetters(settings.images_dir)
    database = Database(settings.conninfo, probe_pi_id=settings.probe_pi_id)
    inserted = 0
    try:
        for path, problem in retry(letters, database):
            inserted += problem is None
            if problem is not None:
                print(f"left {path}: {problem}", flush=True)
        left = len(letters.paths())
    except DatabaseUnavailableError as error:
        print(f"posture-analyzer: {error}; rows put in: {inserted}; run this again for the others", file=sys.stderr)
        return 1
    except OSError as error:
        raise LastingError(
            f"cannot use {error.filename or letters.directory}: {error.strerror}; "
            "run this as the analyzer's user, with its POSTURE_IMAGES_DIR"
        ) from None
    finally:
        database.close()
    print(f"rows put in: {inserted}; left in {letters.directory}: {left}")
    return 1 if left else 0


def _prune() -> int:
    settings = PruneSettings.read()

    from .prune import default_keep_bytes, prune

    directory = settings.images_dir
    try:
        keep_bytes = settings.images_keep_bytes or default_keep_bytes(directory)
        pruned = prune(directory, now=time.time(), keep_days=settings.images_keep_days, keep_bytes=keep_bytes)
    except OSError as error:
        raise LastingError(f"cannot prune {error.filename or directory}: {error.strerror}") from None
    print(
        f"removed: {pruned.removed} files, {pruned.removed_bytes} bytes; "
        f"left: {pruned.left_bytes} of {keep_bytes} bytes"
    )
    return 0


def _image(files: list[Path], *, as_json: bool, save_to: Path | None, rotate: int) -> int:
    settings = AnalysisSettings.read()
    set_up_logging("ERROR")

    if save_to is not None:
        _make(save_to)
    results: list[FileResult] = []
    try:
        with _uninterrupted():
            from .files import analyse_files

        for result in analyse_files(files, settings, save_to=save_to, rotate=rotate):
            results.append(result)  # noqa: PERF402  (what is there stays there when a later one stops it)
    except KeyboardInterrupt:
        if results or as_json:
            _show(results, as_json=as_json)
        print(f"posture-analyzer: interrupted after {len(results)} of {len(files)} files", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception:
        if results:
            _show(results, as_json=as_json)
        raise
    _show(results, as_json=as_json)
    return 1 if any(result.failed for result in results) else 0


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: what MediaPipe imports swallows it, or cannot be imported again."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LastingError(f"cannot make {directory}: {error.strerror}; choose another --save directory") from None


def _show(results: Sequence["FileResult"], *, as_json: bool) -> None:
    if as_json:
        text = json.dumps([result.as_dict() for result in results], indent=2)
    else:
        from .files import table

        text = table(results)
    encoding = sys.stdout.encoding
    print(text.encode(encoding, errors="replace").decode(encoding), flush=True)
