"""``kvw env``."""

from __future__ import annotations

from kvw.cli.options import Json, print_json


def env(*, json: Json = False) -> None:
    """Print what kvw runs on, for bug reports: versions with the tested ones, devices, the cache."""
    from kvw.report.environment import print_devices, print_environment
    from kvw.runs.environment import devices, environment

    here = environment()
    if json:
        both = here.model_dump(mode="json") | {"devices": devices().model_dump(mode="json")}
        import json as json_module

        print_json(json_module.dumps(both, indent=2))
        return
    print_environment(here)
    print_devices(devices())
