"""The command posture-analyzer."""

import argparse
import json
import sys
from pathlib import Path

from posture_common.service import EXIT_REFUSED, LastingError, set_up_logging, stop_on_signals
from posture_common.settings import SettingsError

from .settings import AnalysisSettings, AnalyzerSettings

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
    commands.add_parser("check", help="try broker, database, model and images directory, and say what is wrong")
    commands.add_parser("retry", help="put the rows in that the database refused, once its table is mended")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "image":
                return _image(arguments.files, as_json=arguments.json, save_to=arguments.save)
            case "check":
                return _check()
            case "retry":
                return _retry()
            case _:
                return _run()
    except (SettingsError, LastingError) as error:
        print(f"posture-analyzer: {error}", file=sys.stderr)
        return EXIT_REFUSED


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


def _image(files: list[Path], *, as_json: bool, save_to: Path | None) -> int:
    settings = AnalysisSettings.read()
    set_up_logging("ERROR")

    from .files import analyse_files, table

    try:
        results = list(analyse_files(files, settings, save_to=save_to))
    except OSError as error:
        raise LastingError(
            f"cannot write {error.filename}: {error.strerror}; choose another --save directory"
        ) from None
    print(json.dumps([result.as_dict() for result in results], indent=2) if as_json else table(results))
    return 1 if any(result.unreadable for result in results) else 0
