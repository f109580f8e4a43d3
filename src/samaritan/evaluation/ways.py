"""Which protocol asks a model in which way: through a session as a person does, or as published."""

from __future__ import annotations

from samaritan.errors import ConfigError
from samaritan.evaluation.cvpr25 import ask_as_cvpr25, challenge_trial
from samaritan.evaluation.published_volumes import PUBLISHED
from samaritan.evaluation.sam_med2d import ask_as_sam_med2d, check_trial
from samaritan.evaluation.trial import Trial
from samaritan.evaluation.trials import Asking, ask_by_session, suited
from samaritan.infer import Predictor
from samaritan.metrics import Protocol, get_protocol
from samaritan.metrics.protocols import PROTOCOLS


def protocol_named(name: str, *, tolerance: float | None = None) -> Protocol:
    """Make the protocol that measures a model's answers.

    Raises:
        ConfigError: if the name is not known, or the tolerance is fixed.
    """
    if name not in PUBLISHED and name not in PROTOCOLS:
        known = ", ".join(dict.fromkeys((*PROTOCOLS, *PUBLISHED)))
        raise ConfigError(f"protocol {name!r} is not known: use one of {known}")
    if name in PUBLISHED and tolerance is None:
        return PUBLISHED[name].protocol
    return get_protocol(name if name in PROTOCOLS else "sam_med3d", tolerance=tolerance)


def way_of(
    protocol: Protocol, predictor: Predictor, trial: Trial, *, clicks: int | None, chosen: bool
) -> tuple[Trial, Asking]:
    """What to ask a promptable model under a protocol, and how.

    Args:
        protocol: from `protocol_named`.
        predictor: the model.
        trial: what was wished.
        clicks: how many were wished; None: as many as the protocol has.
        chosen: whether the prompts were named.

    Raises:
        ConfigError: if the protocol does not have what was wished, or is not for such models.
    """
    name = protocol.name
    if name == "samed":
        raise ConfigError(
            "protocol 'samed' is for models that label the whole image; this one answers prompts. "
            "Use samaritan, sam_med2d or, for volumes, sam_med3d"
        )
    if name in PUBLISHED:
        test = PUBLISHED[name]
        test.check(predictor)
        return test.trial(trial, clicks=clicks, chosen=chosen), test.asking
    if name == "cvpr25":
        return challenge_trial(predictor, trial, chosen=chosen), ask_as_cvpr25
    if name == "sam_med2d":
        check_trial(predictor, trial)
        return trial, ask_as_sam_med2d
    return trial if chosen else suited(trial, predictor), ask_by_session
