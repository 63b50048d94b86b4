"""Random worlds: every combination of what Kapso's contract leaves open, as far as code that is sound can live in it."""

from __future__ import annotations

from hypothesis import strategies as st

from kapso_sync.emulator.options import Behaviour

_STYLES = st.sampled_from([{}, {"module_code": "error"}, {"script_code": "error"}])


@st.composite
def worlds(draw: st.DrawFn) -> Behaviour:
    """One world. At least one style of code runs; routes that never answer are tested by themselves."""
    booleans = (
        "list_code",
        "error_moves_updated_at",
        "slug_change_loses_secrets",
        "keeps_public_endpoint",
        "function_type_required",
        "invoke_mode_in_create",
        "takes_wrapped",
        "handler_ctx",
        "invoke_headers",
        "errors_quote",
        "old_scripts_count",
    )
    switches: dict[str, object] = {name: draw(st.booleans()) for name in booleans}
    switches |= {
        "function_type_in_update": draw(st.sampled_from(["ignore", "take", "refuse"])),
        "secrets_on_deploy": draw(st.sampled_from(["keep", "drop"])),
        "post_of_existing": draw(st.sampled_from(["refuse", "overwrite"])),
        "inherited_secrets": draw(st.sampled_from([[], ["SHARED"], ["SHARED", "TOKEN"]])),
        "lock_version": draw(st.sampled_from(["absent", "update", "deploy", "refused"])),
        "normalise_code": draw(st.sampled_from(["off", "rstrip", "newlines"])),
        "status_word": draw(st.sampled_from(["deployed", "active"])),
        "quota_answer": draw(st.sampled_from(["refuse", "error"])),
        "code_limit": draw(st.sampled_from([10**6, 2**20])),
        **draw(_STYLES),
    }
    return Behaviour().changed(switches)
