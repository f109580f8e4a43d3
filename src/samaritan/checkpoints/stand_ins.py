"""The names that a checkpoint may ask for, and the inert objects that most of them get.

Training files carry more than weights: an `argparse.Namespace`, a whole optimiser, a scheduler, numpy
scalars. None of it is needed. Exactly the names listed here are answered with objects that store
what they are given and do nothing; every other name makes the file unsafe.
"""

from __future__ import annotations

from typing import Any


class Inert:
    """Stands for an object of a training file: keeps its arguments and state, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Make one, whatever the arguments."""
        self = super().__new__(cls)
        self.__dict__["arguments"] = args
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, not loaded>"


class EmptyDict:
    """Stands for a class of dictionaries: making one gives a plain empty dict."""

    def __new__(cls, *args: Any, **kwargs: Any) -> dict[Any, Any]:  # type: ignore[misc]
        """An empty dict, whatever the arguments."""
        return {}


STORAGE_BYTES = {
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8,
    "torch.IntStorage": 4,
    "torch.ShortStorage": 2,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
    **{
        f"torch.cuda.{kind}Storage": size
        for kind, size in (("Double", 8), ("Float", 4), ("Half", 2), ("BFloat16", 2), ("Long", 8))
    },
}
"""Bytes per element of each kind of storage that is read."""

TENSOR_NAMES = frozenset(
    {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.nn.parameter.Parameter",
        "torch.Size",
        "torch.device",
        *(
            f"torch.{name}"
            for name in (
                *("float64", "float32", "float16", "bfloat16"),
                *("int64", "int32", "int16", "int8", "uint8", "bool"),
            )
        ),
        # plain containers that schedulers and loggers keep; torch reads them itself
        "builtins.set",
        "collections.Counter",
        "_codecs.encode",
    }
)
"""What torch itself reads with `weights_only`, less what could take memory or is never in weights."""

_OPTIMISERS = {
    "adam": "Adam",
    "adamw": "AdamW",
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adamax": "Adamax",
    "nadam": "NAdam",
    "radam": "RAdam",
}
_SCHEDULERS = (
    *("StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR", "PolynomialLR", "LinearLR"),
    *("ConstantLR", "CosineAnnealingWarmRestarts", "ReduceLROnPlateau", "OneCycleLR"),
    *("CyclicLR", "SequentialLR"),
)

_INERT_NAMES = (
    "argparse.Namespace",
    *(f"torch.optim.{module}.{name}" for module, name in _OPTIMISERS.items()),
    *(f"torch.optim.lr_scheduler.{name}" for name in _SCHEDULERS),
    "torch.cuda.amp.grad_scaler.GradScaler",
    "torch.amp.grad_scaler.GradScaler",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    "numpy.float64",
    "numpy.float32",
    "numpy.int64",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "datetime.datetime",
    "datetime.timedelta",
    "builtins.dict",
    "builtins.int",
    "builtins.float",
    "builtins.list",
)
_DICT_NAMES = (
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
)

STAND_INS: dict[str, type] = {
    **{name: type(name.rpartition(".")[2], (Inert,), {}) for name in _INERT_NAMES},
    **dict.fromkeys(_DICT_NAMES, EmptyDict),
}
"""Every further name that is answered, and the inert class it gets."""


def unknown_names(names: list[str]) -> list[str]:
    """Those names that no checkpoint may ask for."""
    known = TENSOR_NAMES | STAND_INS.keys() | STORAGE_BYTES.keys()
    return [name for name in names if name not in known]
