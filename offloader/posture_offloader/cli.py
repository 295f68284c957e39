"""The command posture-offloader."""

import argparse
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

from posture_common.service import EXIT_REFUSED, LastingError, set_up_logging, stop_on_signals
from posture_common.settings import SettingsError

from posture_edge.load import PrometheusError
from posture_edge.placement import DEFAULT_STREAM_LOAD, Settings
from posture_offloader import site
from posture_offloader.explain import as_json, as_text, explain
from posture_offloader.record import record
from posture_offloader.replay import Replay, replay
from posture_offloader.trace import TraceError, read_trace


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 and one line on stderr where it cannot be done."""
    options = _parse(arguments)
    try:
        match options.command:
            case "explain":
                return _explain(options)
            case "record":
                return _record(options)
            case "replay":
                return _replay(options)
            case "status":
                return _status(as_json=options.json)
            case _:
                return _run()
    except (SettingsError, LastingError) as error:
        _fail(str(error))
        return EXIT_REFUSED
    except FileExistsError as error:
        return _fail(f"{error.filename} is there already: choose another name")
    except (site.SiteError, TraceError, PrometheusError, OSError) as error:
        return _fail(str(error))


def _run() -> int:
    # What only the service needs is imported where it is: Kubernetes' client takes two seconds.
    from posture_offloader.run import Offloader
    from posture_offloader.settings import OffloaderSettings

    settings = OffloaderSettings.read()
    set_up_logging(settings.log_level)
    stop = stop_on_signals()
    Offloader(settings, stop).run()
    return 0


def _status(*, as_json: bool) -> int:
    from posture_common.mqtt import Broker, ConnectionLostError

    from posture_offloader import report
    from posture_offloader.settings import OffloaderSettings

    try:
        said = report.ask(Broker.of(OffloaderSettings.read()))
    except ConnectionLostError as error:
        return _fail(str(error))
    print(json.dumps(said, indent=2) if as_json else report.as_text(said))
    return 0


def _explain(options: argparse.Namespace) -> int:
    lab = site.from_arguments(options)
    placed = dict(text.split("=", 1) for text in options.on)
    nodes = lab.look()
    streams = dict.fromkeys((*lab.streams, *placed)) if options.stream or options.inventory or not placed else placed
    planned = explain(nodes, streams, placed=placed, home=lab.free_home, settings=lab.settings)
    print(json.dumps(as_json(planned, nodes), indent=2) if options.json else as_text(planned))
    return 0


def _record(options: argparse.Namespace) -> int:
    # A service manager stops it as a person does: what was recorded is whole.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ticks = record(
        site.from_arguments(options),
        options.trace,
        interval_s=options.interval,
        duration_s=options.duration,
        said=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(f"{options.trace}: {ticks} ticks")
    return 0


def _replay(options: argparse.Namespace) -> int:
    trace = read_trace(options.trace)
    stream_load = DEFAULT_STREAM_LOAD if trace.header.stream_load is None else trace.header.stream_load
    settings = replace(Settings(), stream_load=stream_load, streams_per_node=options.streams_per_node)
    replayed = replay(trace, settings, closed_loop=options.closed_loop)
    if options.plot:
        from posture_offloader.plot import plot

        try:
            plot(replayed, settings, options.plot)
        except ValueError as error:
            return _fail(f"{options.plot}: {error}")
    print(json.dumps(replayed.as_json(), indent=2) if options.json else _summary(replayed))
    return 0


def _summary(replayed: Replay) -> str:
    moves = [
        f"{move.time:8.0f} s  {move.decision.stream}: {move.decision.previous or 'new'} -> {move.decision.node}  "
        f"({move.decision.reason})"
        for move in replayed.moves
    ]
    places = ", ".join(f"{stream} on {node or 'no node'}" for stream, node in replayed.placements.items())
    rate = f"{replayed.moved} moves in {replayed.hours:.2f} h, {replayed.moves_per_hour:.1f} an hour"
    figures = f"{rate}; {replayed.flaps} flaps; {replayed.overload_seconds:.0f} s overloaded"
    return "\n".join([*moves, figures, f"in the end: {places or 'no stream'}"])


def _fail(message: str) -> int:
    print(f"posture-offloader: {message}", file=sys.stderr)
    return 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="posture-offloader",
        description="Decides on which node each stream is analysed, and says why. Without a command: keeps the streams "
        "there, as Jobs of Kubernetes, until stopped. Settings: docs/offload.md.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    status = commands.add_parser("status", help="where each stream is, as the running offloader last said")
    status.add_argument("--json", action="store_true", help="print JSON")
    explaining = commands.add_parser("explain", help="what would be decided now, and why")
    site.add_arguments(explaining)
    explaining.add_argument(
        "--on", action="append", default=[], type=_place, metavar="STREAM=NODE", help="where a stream is now"
    )
    explaining.add_argument("--json", action="store_true", help="print JSON")
    recording = commands.add_parser("record", help="write a load trace from Prometheus, until SIGINT or SIGTERM")
    site.add_arguments(recording)
    recording.add_argument("trace", type=Path, metavar="TRACE.jsonl", help="a new file")
    recording.add_argument("--interval", type=_seconds, default=3.0, help="seconds between ticks (%(default)s)")
    recording.add_argument("--duration", type=_seconds, help="seconds to record; default: for ever")
    replaying = commands.add_parser("replay", help="run a load trace through the policy")
    replaying.add_argument("trace", type=Path, metavar="TRACE.jsonl")
    replaying.add_argument("--closed-loop", action="store_true", help="each stream adds its load to the node it is on")
    replaying.add_argument("--streams-per-node", type=int, help="the most streams that a node takes; default: no limit")
    replaying.add_argument("--plot", type=Path, metavar="FILE.png", help="draw loads, thresholds and placements")
    replaying.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def _place(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not STREAM=NODE")
    return text


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return seconds
