"""The published weights: where each file is, what it belongs to, under which licence.

Sizes and hashes were taken from the publishers' pages and Git LFS pointers. Where no hash is known, it
is recorded when the file is fetched for the first time. Licences are those that the publishers state
for code and weights; the terms of the training data are another matter.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from samaritan.errors import ConfigError


@dataclass(frozen=True)
class Published:
    """One file of published weights."""

    name: str
    """What to call it here."""
    system: str
    """Which published system it belongs to."""
    model: str
    """Name of the model that it fits, for `create_model`; with the image size, if that differs."""
    file: str
    """File name in our cache."""
    url: str | None
    """Where it can be fetched; None where a browser is needed."""
    page: str
    """The page that offers it."""
    licence: str
    """As stated by the publisher."""
    size: int
    """In bytes; approximate unless `size_exact`."""
    size_exact: bool = False
    """Whether `size` is known to the byte."""
    sha256: str | None = None
    """Of the file, if it is known."""
    citation: str = ""
    """The paper."""
    note: str = ""
    """What else to know."""
    supported: bool = True
    """Whether this version can load it."""
    shipped: bool = False
    """Whether it is a part of this package, with a card beside it that describes it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)


_META = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM_PAGE = "https://github.com/facebookresearch/segment-anything#model-checkpoints"
_SAM_PAPER = "Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643"
_MED3D_PAGE = "https://huggingface.co/blueyo0/SAM-Med3D"
_MED3D_PAPER = "Wang et al., SAM-Med3D, ECCV BIC 2024, arXiv:2310.15161"
_MED2D_PAGE = "https://github.com/OpenGVLab/SAM-Med2D"
_MED2D_PAPER = "Cheng et al., SAM-Med2D, 2023, arXiv:2308.16184"
_MEDSAM_PAPER = (
    "Ma et al., Segment Anything in Medical Images, Nature Communications 2024, arXiv:2304.12306"
)
_3DINO_PAPER = "Xu et al., A generalizable 3D framework (3DINO), 2025, arXiv:2501.11755"
_SAMED_PAGE = "https://github.com/hitachinsk/SAMed"
_SAMED_PAPER = "Zhang and Liu, Customized Segment Anything Model (SAMed), 2023, arXiv:2304.13785"


def _sam(size: str, file: str, n_bytes: int, sha256: str) -> Published:
    return Published(
        name=f"sam_vit_{size}",
        system="SAM",
        model=f"sam_vit_{size}",
        file=file,
        url=f"{_META}/{file}",
        page=_SAM_PAGE,
        licence="Apache-2.0",
        size=n_bytes,
        size_exact=True,
        sha256=sha256,
        citation=_SAM_PAPER,
    )


def _hugging_face_sam(size: str, word: str, n_bytes: int) -> Published:
    return Published(
        name=f"sam_vit_{size}_hf",
        system="SAM",
        model=f"sam_vit_{size}",
        file=f"sam_vit_{size}_hf.safetensors",
        url=f"https://huggingface.co/facebook/sam-vit-{word}/resolve/main/model.safetensors",
        page=f"https://huggingface.co/facebook/sam-vit-{word}",
        licence="Apache-2.0",
        size=n_bytes,
        citation=_SAM_PAPER,
        note=f"the weights of sam_vit_{size} in the layout of Hugging Face",
    )


def _sammed3d(name: str, file: str, sha256: str | None, note: str) -> Published:
    return Published(
        name=name,
        system="SAM-Med3D",
        model="sammed3d_vit_b_ori",
        file=file,
        url=f"{_MED3D_PAGE}/resolve/main/{file}",
        page=_MED3D_PAGE,
        licence="Apache-2.0",
        size=402_000_000,
        sha256=sha256,
        citation=_MED3D_PAPER,
        note=note,
    )


_PUBLISHED = (
    Published(
        name="samaritan_2d",
        system="Samaritan",
        model="samaritan_2d",
        file="samaritan_2d.safetensors",
        url=None,
        page="docs/samaritan_2d.md",
        licence="Apache-2.0",
        size=7_000_000,
        note="comes with this package; answers points, boxes and masks on pictures and slices",
        shipped=True,
    ),
    Published(
        name="samaritan_3d",
        system="Samaritan",
        model="samaritan_3d",
        file="samaritan_3d.safetensors",
        url=None,
        page="docs/samaritan_3d.md",
        licence="Apache-2.0",
        size=14_400_000,
        note="comes with this package; answers points, boxes and masks in volumes",
        shipped=True,
    ),
    _sam(
        "b",
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam(
        "l",
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "h",
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    _hugging_face_sam("b", "base", 375_000_000),
    _hugging_face_sam("l", "large", 1_250_000_000),
    _hugging_face_sam("h", "huge", 2_560_000_000),
    _sammed3d(
        "sammed3d_turbo",
        "sam_med3d_turbo.pth",
        "899a46d04d3b70f723282ceb489149373558bf0aaba389a346f5ab57da5cdd3c",
        "the weights that its authors recommend; points only",
    ),
    _sammed3d(
        "sammed3d_turbo_bbox_init",
        "sam_med3d_turbo_bbox_init.pth",
        None,
        "4 point embeddings, a start for training with boxes",
    ),
    _sammed3d(
        "sammed3d_turbo_cvpr_coreset",
        "sam_med3d_turbo_cvpr_coreset.pth",
        "11520a8f5adf1ef331c5858400138cc7f6eed65584bdd44e0f325fda5d1e0640",
        "4 point embeddings, tuned for the CVPR 2025 interactive challenge",
    ),
    Published(
        name="medsam_vit_b",
        system="MedSAM",
        model="sam_vit_b",
        file="medsam_vit_b.pth",
        url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        page="https://github.com/bowang-lab/MedSAM",
        licence="Apache-2.0",
        size=375_000_000,
        citation=_MEDSAM_PAPER,
        note="trained with boxes",
    ),
    Published(
        name="medsam_vit_b_hf",
        system="MedSAM",
        model="sam_vit_b",
        file="medsam_vit_b_hf.safetensors",
        url="https://huggingface.co/wanglab/medsam-vit-base/resolve/main/model.safetensors",
        page="https://huggingface.co/wanglab/medsam-vit-base",
        licence="Apache-2.0",
        size=375_000_000,
        citation=_MEDSAM_PAPER,
        note="trained with boxes; uploaded in 2023, in the layout of Hugging Face",
    ),
    Published(
        name="ft_sam_b",
        system="FT-SAM",
        model="sam_vit_b, image_size=256",
        file="ft-sam_b.pth",
        url=None,
        page="https://drive.google.com/file/d/1J4qQt9MZZYdv1eoxMTJ4FL8Fz65iUFM8/view",
        licence="Apache-2.0",
        size=363_000_000,
        citation=_MED2D_PAPER,
        note=f"offered by {_MED2D_PAGE}",
    ),
    Published(
        name="sammed2d_b",
        system="SAM-Med2D",
        model="sammed2d_vit_b",
        file="sam-med2d_b.pth",
        url=None,
        page="https://drive.google.com/file/d/1ARiB5RkSsWmAB_8mqWnwDF8ZKTtFwsjl/view",
        licence="Apache-2.0",
        size=2_400_000_000,
        citation=_MED2D_PAPER,
        note=f"offered by {_MED2D_PAGE}; has adapters",
    ),
    Published(
        name="samed_vit_b_synapse",
        system="SAMed",
        model="samed_vit_b",
        file="samed_epoch_159.pth",
        url=None,
        page="https://drive.google.com/file/d/1P0Bm-05l-rfeghbrT1B62v5eN-3A-uOr/view",
        licence="MIT",
        size=19_700_000,
        citation=_SAMED_PAPER,
        note=f"offered by {_SAMED_PAGE} as epoch_159.pth; LoRA and decoder, needs sam_vit_b as well",
    ),
    Published(
        name="samed_s_vit_b_synapse",
        system="SAMed_s",
        model="samed_s_vit_b",
        file="samed_s_epoch_159.pth",
        url=None,
        page="https://drive.google.com/file/d/1rQM2md-h66RlRF3wC0m9N8aheOCvKfYv/view",
        licence="MIT",
        size=6_600_000,
        citation=_SAMED_PAPER,
        note=f"offered by {_SAMED_PAGE} as epoch_159.pth; LoRA and decoder, needs sam_vit_b as well",
    ),
    Published(
        name="3dino_vit",
        system="3DINO",
        model="neurosam3d_dinov2",
        file="3dino_vit.pth",
        url=None,
        page="https://huggingface.co/AICONSlab/3DINO-ViT",
        licence="CC-BY-NC-ND-4.0",
        size=1_230_000_000,
        citation=_3DINO_PAPER,
        note="an image encoder alone, under the key teacher, to start NeuroSAM3D from; for non-commercial "
        "use, and changed versions must not be passed on",
    ),
)
_BY_NAME = {published.name: published for published in _PUBLISHED}

ALIASES = {"sammed3d_vit_b_ori": "sammed3d_turbo", "sammed3d": "sammed3d_turbo"}
"""Further names: of a model that only one file was published for."""


def published_weights() -> tuple[Published, ...]:
    """All published weights that are known here."""
    return tuple(_BY_NAME.values())


def find_published(name: str) -> Published | None:
    """The published weights of this name, or of the model of this name; None if there are none.

    >>> find_published("sam_vit_b").licence
    'Apache-2.0'
    """
    return _BY_NAME.get(ALIASES.get(name, name))


def get_published(name: str) -> Published:
    """The published weights of this name.

    Raises:
        ConfigError: if the name is not known, with the nearest ones.
    """
    published = find_published(name)
    if published is None:
        near = difflib.get_close_matches(name, [*_BY_NAME, *ALIASES], n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ConfigError(
            f"no published weights are called {name!r}, and there is no such file. {hint}"
            f"Known: {', '.join(_BY_NAME)}"
        )
    return published
