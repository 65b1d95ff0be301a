"""Signatures of the chosen release, from the facts file."""

import functools
import inspect
import json
import os
import pathlib
from typing import Any, Callable, Dict

FILE = pathlib.Path(__file__).parents[2] / "facts" / "npu_bridge.json"
FACTS: Dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
RELEASE = os.environ.get("NPU_DOUBLE_RELEASE", "master_2023-12")


def signature(name: str, release: str = RELEASE) -> inspect.Signature:
    """Return the signature, without ``self``, of a callable in a release."""
    for text, releases in FACTS["signatures"][name].items():
        if releases == ["all"] or release in releases:
            return inspect.signature(eval(f"lambda {text}: None"))
    raise AttributeError(f"{name} does not exist in {release}")


def released(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function or ``__init__`` the signature of the release, and enforce it."""
    public = signature(name)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        is_method = function.__name__ == "__init__"

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            selves, rest = args[:is_method], args[is_method:]
            bound = public.bind(*rest, **kwargs)
            bound.apply_defaults()
            return function(*selves, **bound.arguments)

        own = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        call.__signature__ = public.replace(  # type: ignore[attr-defined]
            parameters=own * is_method + list(public.parameters.values())
        )
        return call

    return decorate
