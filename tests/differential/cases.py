"""Cases for the differential test, drawn by hypothesis."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, strategies as st

from djasgi.handler import exchange
from tests.differential.world import BODIES, ERRORS, VIEWS, Case, Layer

RAISING = tuple(f"raise {name}" for name in ERRORS)
HOOKS = {
    "process_request": ("pass", "set", "nested", "respond", "falsy", "query", *RAISING),
    "process_view": ("pass", "set", "nested", "respond", "falsy", "template", "async pass", *RAISING),
    "process_template_response": ("pass", "set", "nested", "respond", "template", "none", "async pass",
                                  *RAISING),
    "process_exception": ("pass", "set", "nested", "respond", "falsy", "template", "async respond",
                          *RAISING),
    "process_response": ("pass", "set", "nested", "respond", "none", "falsy", "query", *RAISING),
}  # fmt: skip
BEFORE = ("pass", "set", "respond", *RAISING)
AFTER = ("pass", "set", "respond", "again", "swallow", "task", "timeout", *RAISING)

OF_HOOKS = ("mixin", "mixin call", "mixin acall", "mixin sync", "mixin async")
OF_BODY = ("function", "both", "async function")
OF_BOTH = ("class", "async class", "unmarked")
SYNCHRONOUS = ("function", "class", "mixin sync")
AROUND_VIEW = ("process_view", "process_template_response", "process_exception")


def hooks(names: tuple[str, ...]) -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    """Some of the hooks, mostly harmless."""
    each = [
        st.one_of(
            st.none(),
            st.tuples(st.just(name), st.sampled_from(HOOKS[name][:3])),
            st.tuples(st.just(name), st.sampled_from(HOOKS[name])),
        )
        for name in names
    ]
    return st.tuples(*each).map(lambda found: tuple(filter(None, found)))


def bodies() -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    """What a middleware of one's own does before and after."""
    return st.tuples(
        st.tuples(st.just("before"), st.sampled_from(BEFORE) | st.just("pass")),
        st.tuples(st.just("after"), st.sampled_from(AFTER) | st.just("pass")),
    )


def layers() -> st.SearchStrategy[Layer]:
    """A middleware of any style."""
    of_hooks = st.builds(Layer, st.sampled_from(OF_HOOKS), hooks(tuple(HOOKS)))
    of_body = st.builds(Layer, st.sampled_from(OF_BODY), bodies())
    of_both = st.builds(
        Layer,
        st.sampled_from(OF_BOTH),
        st.tuples(bodies(), hooks(AROUND_VIEW)).map(lambda two: (*two[0], *two[1])),
    )
    plain = st.builds(Layer, st.just("mixin"), hooks(tuple(HOOKS)))
    return st.one_of(plain, of_hooks, of_body, of_both, st.just(Layer("not used")))


RECEIVERS = ("started", "finished", "exception", "started set", "finished set",
             "started async", "finished async", "started raise", "finished raise")  # fmt: skip

ACTIONS = ("respond", "set", "nested", "none", "template", "query", *RAISING)


def cases() -> st.SearchStrategy[Case]:
    """A project and a request to it."""
    return st.builds(
        Case,
        layers=st.lists(layers(), max_size=6).map(tuple),
        view=st.sampled_from(VIEWS),
        action=st.one_of(st.just("respond"), st.sampled_from(ACTIONS)),
        debug=st.booleans(),
        atomic=st.booleans(),
        body=st.sampled_from(sorted(BODIES)),
        query=st.sampled_from((b"a=1", b"", b"a=1", b"\xff")),
        receivers=st.one_of(
            st.just(("started", "finished", "exception")),
            st.just(("started", "exception")),
            st.lists(st.sampled_from(RECEIVERS), unique=True, max_size=4).map(tuple),
        ),
        propagate=st.sampled_from((False, False, False, True)),
        error_handlers=st.sampled_from(("plain", "none", "set", "raising")),
    )


def moments(case: Case) -> list[str]:
    """Where in a case the client can go away."""
    found = ["view", "send"]
    for number, layer in enumerate(case.layers):
        found += [f"m{number}.{name}" for name, _ in layer.hooks]
    return found


@st.composite
def disconnected(draw: st.DrawFn) -> Case:
    """A case in which the client goes away."""
    case = draw(cases())
    assume(exchange.APART or not is_forgetful(case))
    return replace(case, disconnect=draw(st.sampled_from(moments(case))))


def is_forgetful(case: Case) -> bool:
    """Whether a hook above synchronous middleware goes to a loop and back on its own.

    asgiref then abandons that middleware when the client goes away, and since Django 6.1
    sends request_finished from in between its two halves; djasgi sends it afterwards.
    """
    actions = [action for layer in case.layers for _, action in layer.hooks]
    return "nested" in actions and any(
        layer.style in SYNCHRONOUS for layer in case.layers
    )
